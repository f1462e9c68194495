// What the page says, in Korean and English. A value may be a function of what it speaks of.

const LABELS = {
  angry: ["분노", "angry"],
  disgust: ["혐오", "disgust"],
  fear: ["공포", "fear"],
  happiness: ["행복", "happiness"],
  neutral: ["중립", "neutral"],
  sadness: ["슬픔", "sadness"],
  surprise: ["놀람", "surprise"],
  calm: ["차분함", "calm"],
  boredom: ["지루함", "boredom"],
  anxiety: ["불안", "anxiety"],
  hurt: ["상처", "hurt"],
  embarrassment: ["당황", "embarrassment"],
  affection: ["사랑스러움", "affection"],
};

const TEXTS = {
  skip: ["본문으로 건너뛰기", "Skip to the content"],
  subtitle: ["음성 감정 인식", "speech emotion recognition"],
  language: ["English", "한국어"],
  synthetic: [
    "이 모델은 합성 음성으로 학습했습니다. 실제 음성에 대한 결과는 의미가 없습니다.",
    "This model was trained on synthetic speech: what it says of real speech means nothing.",
  ],
  keyLabel: ["API 키", "API key"],
  keyUse: ["사용", "Use"],
  keyNeeded: ["이 서버는 API 키가 필요합니다.", "This server needs an API key."],
  inputTitle: ["음성 넣기", "Give it speech"],
  dropTitle: ["파일을 놓거나 눌러서 고르기", "Drop a file, or press to choose one"],
  limits: [
    ({ minutes, megabytes }) => `최대 ${minutes}분, ${megabytes} MB`,
    ({ minutes, megabytes }) => `up to ${minutes} minutes and ${megabytes} MB`,
  ],
  record: ["마이크 시작", "Start microphone"],
  stop: ["마이크 중지", "Stop microphone"],
  microphoneNote: ["말하는 동안 결과가 나옵니다", "Results while you speak"],
  ready: ["준비되었습니다.", "Ready."],
  working: [({ name }) => `${name} 분석 중…`, ({ name }) => `Listening to ${name} …`],
  explaining: ["근거를 찾는 중…", "Looking for what the result rests on …"],
  asking: ["마이크 사용 허락을 기다리는 중…", "Waiting for your permission to use the microphone …"],
  listening: ["듣고 있습니다…", "Listening …"],
  finishing: ["마지막 결과를 기다리는 중…", "Waiting for the last result …"],
  done: [({ seconds }) => `${seconds}초를 분석했습니다.`, ({ seconds }) => `Done: ${seconds} s of sound.`],
  noMicrophone: [
    "마이크를 쓸 수 없습니다. 브라우저에서 권한을 허용했는지, 마이크가 연결되어 있는지 확인하세요.",
    "No microphone: allow it for this page, and check that one is connected.",
  ],
  insecure: [
    "브라우저는 https 또는 localhost에서만 마이크를 허용합니다.",
    "Browsers allow the microphone on https or localhost only.",
  ],
  offline: ["서버에 연결할 수 없습니다.", "The server cannot be reached."],
  streamEnded: ["서버가 연결을 끊었습니다.", "The server ended the stream."],
  resultTitle: ["결과", "Result"],
  summary: [
    ({ label, percent }) => `${label} ${percent} %`,
    ({ label, percent }) => `${label}, ${percent} %`,
  ],
  noSpeech: ["말소리를 찾지 못했습니다.", "No speech was found."],
  barsLabel: ["감정별 확률", "Probability of each emotion"],
  timelineTitle: ["시간에 따른 감정", "Emotion over time"],
  timelineLabel: [
    ({ seconds, count }) => `${seconds}초 길이의 파형과 감정 곡선, 구간 ${count}개. 같은 내용이 아래 표에 있습니다.`,
    ({ seconds, count }) => `Waveform of ${seconds} s and curves of emotion, ${count} segments. The table below says the same.`,
  ],
  tableLabel: ["감정 구간", "Segments of emotion"],
  columnStart: ["시작", "Start"],
  columnEnd: ["끝", "End"],
  columnEmotion: ["감정", "Emotion"],
  columnProbability: ["확률", "Probability"],
  columnWhy: ["근거", "Why"],
  why: ["왜?", "Why?"],
  whyAll: ["전체 결과는 왜?", "Why, as a whole?"],
  whyStop: ["중지", "Stop"],
  whyLabel: [({ words, from, to }) => `${words} ${from}부터 ${to}까지`, ({ words, from, to }) => `${words} ${from} to ${to}`],
  whyPicture: [
    ({ from, to }) => `${from}–${to}의 파형과 순간마다의 근거. 가장 큰 것들은 아래에 글로 있습니다.`,
    ({ from, to }) => `Waveform of ${from} to ${to} and the evidence of each moment. The strongest are in words below.`,
  ],
  whyTitle: [({ from, to }) => `${from}–${to}의 근거`, ({ from, to }) => `Why, ${from} to ${to}`],
  whySummary: [
    ({ label, percent }) => `이 부분만 들은 결과: ${label} ${percent} %. 순간마다 소리를 지우고 다시 물어, 그 순간의 몫을 쟀습니다.`,
    ({ label, percent }) => `Heard by itself: ${label}, ${percent} %. Each moment was silenced in turn to see what it was worth.`,
  ],
  momentFor: [
    ({ from, to, label, worth }) => `${from}–${to}: ${label} 쪽 ${worth}`,
    ({ from, to, label, worth }) => `${from} to ${to} speaks for ${label}: ${worth}`,
  ],
  momentAgainst: [
    ({ from, to, label, worth }) => `${from}–${to}: ${label}의 반대쪽 ${worth}`,
    ({ from, to, label, worth }) => `${from} to ${to} speaks against ${label}: ${worth}`,
  ],
  noMoment: ["어느 한 순간도 결과를 크게 바꾸지 않습니다.", "No single moment changes the result much."],
  whyFor: ["위로: 이 감정을 뒷받침", "up: for this emotion"],
  whyAgainst: ["아래로: 이 감정에 반대", "down: against it"],
  whyWords: ["받아쓴 말과 낱말마다의 근거", "What was understood, and what each word was worth"],
  whyNote: [
    "단위는 로그 오즈(nat)입니다. 모델이 무엇에 기댔는지를 말할 뿐, 말한 사람의 마음을 증명하지는 않습니다.",
    "In nats of log-odds. This is what the model went by, and no proof of what the speaker felt.",
  ],
  whyClose: ["전체 보기", "Show everything"],
  undecided: ["판단 보류", "undecided"],
  jump: [({ time }) => `${time}부터 듣기`, ({ time }) => `Play from ${time}`],
  downloadsLabel: ["내려받기", "Download"],
  privacy: [
    "음성은 저장하지 않고 결과를 낸 뒤 바로 지웁니다.",
    "Sound is not kept: it is gone as soon as the result is there.",
  ],
  health: ["상태", "Health"],
};

// What the server's kinds of problem are in Korean; what exactly is wrong follows in its own words.
const PROBLEMS = {
  "bad-request": "요청의 형식이 잘못되었습니다.",
  "unauthorized": "API 키가 필요합니다.",
  "foreign-origin": "다른 사이트의 페이지는 이 서버에 연결할 수 없습니다.",
  "not-found": "없는 주소입니다.",
  "enrolment-not-found": "등록된 목소리가 없거나 만료되었습니다. 다시 등록하세요.",
  "method-not-allowed": "이 주소에서 쓸 수 없는 방식의 요청입니다.",
  "upload-timeout": "파일이 너무 느리게 올라옵니다. 다시 시도하거나 더 작은 파일로 나누세요.",
  "upload-too-large": "파일이 너무 큽니다. 더 작은 파일로 나누세요.",
  "audio-too-long": "음성이 너무 깁니다. 더 짧게 나누세요.",
  "unsupported-media-type": "이 서버가 받지 않는 형식의 요청입니다.",
  "audio-unreadable": "음성으로 읽을 수 없는 파일입니다. WAV, FLAC, MP3 같은 형식으로 바꾸세요.",
  "no-speech": "말소리가 없어서 목소리를 등록할 수 없습니다.",
  "invalid-request": "요청의 값이 잘못되었습니다.",
  "bad-message": "서버가 알아듣지 못하는 메시지입니다.",
  "stream-idle": "한동안 소리가 없어서 연결이 끝났습니다. 다시 시작하세요.",
  "internal-error": "서버에 오류가 있습니다. 서버 기록에서 요청 번호로 찾을 수 있습니다.",
  "busy": "서버가 바쁩니다. 잠시 뒤에 다시 시도하세요.",
  "not-ready": "서버가 아직 준비되지 않았습니다. 잠시 뒤에 다시 시도하세요.",
  "model-timeout": "모델의 응답이 너무 늦습니다. 더 짧은 음성으로 시도하세요.",
};

const KEEP = "koser.language";
let place = choose();

function choose() {
  const kept = localStorage.getItem(KEEP);
  const language = kept ?? navigator.language;
  return language.toLowerCase().startsWith("ko") ? 0 : 1;
}

export function language() {
  return place === 0 ? "ko" : "en";
}

export function switchLanguage() {
  place = 1 - place;
  localStorage.setItem(KEEP, language());
}

export function text(name, values = {}) {
  const found = TEXTS[name][place];
  return typeof found === "function" ? found(values) : found;
}

// A problem (RFC 9457) as the page says it.
export function problemText({ type, detail }) {
  const korean = language() === "ko" && PROBLEMS[type?.split("/").pop()];
  return korean ? `${korean} (${detail})` : detail;
}

export function labelName(label) {
  if (label === null) return text("undecided");
  return LABELS[label]?.[place] ?? label;
}

export function percent(probability) {
  return new Intl.NumberFormat(language(), { maximumFractionDigits: 0 }).format(100 * probability);
}

export function signed(evidence) {
  const [minus, plus] = ["\u2212", "+"];
  const digits = Math.abs(evidence).toFixed(2);
  return Number(digits) === 0 ? digits : `${evidence < 0 ? minus : plus}${digits}`;
}

export function clock(seconds, digits = 1) {
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds - 60 * minutes).toFixed(digits);
  return `${minutes}:${rest.padStart(digits ? digits + 3 : 2, "0")}`;
}

// Puts the chosen language into everything that is marked in the page.
export function translate(root) {
  root.documentElement.lang = language();
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = text(element.dataset.text);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
  }
}
