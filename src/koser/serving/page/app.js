// The page: what is pressed, dropped and said, and what happens then.

import { ServerError, describeModel, openStream, requestExplanation, requestTimeline, useKey } from "./api.js";
import { FORMATS, download, formatsOf } from "./downloads.js";
import { startMicrophone } from "./microphone.js";
import * as result from "./result.js";
import { switchLanguage, text, translate } from "./texts.js";

const find = (id) => document.getElementById(id);
let model = null;
let status = ["ready"]; // name of the text and its values: it is said again in another language
let recording = null;
let asking = null; // ends the request for an explanation that is waited for

function setStatus(name, values) {
  status = [name, values];
  find("status").textContent = text(name, values);
}

function setProblem(words) {
  find("problem").textContent = words;
  find("problem").hidden = !words;
  if (words) find("problem").scrollIntoView({ block: "nearest" });
}

function report(error) {
  if (!(error instanceof ServerError)) console.error(error);
  if (error.status === 401) {
    find("key-form").hidden = false;
    find("key").focus();
    setProblem(text("keyNeeded"));
  } else {
    setProblem(error.message);
  }
  setStatus("ready");
}

function showLanguage() {
  translate(document);
  const other = find("language");
  other.textContent = text("language");
  other.lang = document.documentElement.lang === "ko" ? "en" : "ko";
  find("record").textContent = text(recording ? "stop" : "record");
  find("status").textContent = text(...status);
  if (model) {
    const limits = { minutes: Math.floor(model.max_timeline_seconds / 60), megabytes: Math.floor(model.max_upload_bytes / 2 ** 20) };
    find("drop-limits").textContent = text("limits", limits);
  }
  result.render();
  showDownloads();
}

async function loadModel() {
  try {
    model = await describeModel();
    find("synthetic").hidden = !model.is_synthetic;
    setProblem("");
    showLanguage();
  } catch (error) {
    report(error);
  }
}

async function recognise(file) {
  if (!file || recording) return;
  setProblem("");
  setStatus("working", { name: file.name });
  find("file").disabled = true;
  try {
    const timeline = await requestTimeline(file);
    stopAsking();
    result.showTimeline(timeline, file, model?.max_explain_seconds);
    setDone();
    showDownloads();
    find("result-title").focus();
  } catch (error) {
    report(error);
  } finally {
    find("file").disabled = false;
    find("file").value = ""; // so that the same file can be chosen again
  }
}

function setDone() {
  setStatus("done", { seconds: result.current().duration.toFixed(1) });
}

// Asks why `part` of the file got its label; asked again meanwhile, it stops.
async function explain(part) {
  const { asking: before, file } = result.current();
  stopAsking();
  if (before === part) return setDone();
  setProblem("");
  setStatus("explaining");
  const mine = (asking = new AbortController());
  result.setAsking(part);
  try {
    const answer = await requestExplanation(file, part, mine.signal);
    if (asking !== mine) return;
    setDone();
    result.showWhy({ ...answer, end: part.end });
  } catch (error) {
    if (asking === mine) report(error);
  } finally {
    if (asking === mine) stopAsking();
  }
}

function stopAsking() {
  asking?.abort();
  asking = null;
  result.setAsking(null);
}

function showDownloads() {
  const group = find("downloads");
  group.querySelectorAll("button").forEach((button) => button.remove());
  const view = result.current();
  group.hidden = !view || view.isLive;
  if (group.hidden) return;
  for (const format of formatsOf(view)) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet" });
    button.textContent = FORMATS[format];
    button.onclick = () => download(view, format).catch(report);
    group.append(button);
  }
}

async function startRecording() {
  setProblem("");
  if (!navigator.mediaDevices?.getUserMedia) return setProblem(text("insecure"));
  setStatus("asking");
  const early = [];
  let take = (pcm) => early.push(pcm);
  let microphone;
  try {
    microphone = await startMicrophone((pcm) => take(pcm));
  } catch (error) {
    console.error(error);
    setStatus("ready");
    return setProblem(text("noMicrophone"));
  }
  let nSamples = 0;
  const stream = openStream(microphone.samplingRate, onMessage, onEnd);
  take = (pcm) => {
    nSamples += pcm.length;
    result.addPeaks(outline(pcm), nSamples / microphone.samplingRate);
    stream.push(pcm.buffer);
  };
  recording = { microphone, stream };
  stopAsking();
  result.beginLive(model?.labels ?? []);
  early.splice(0).forEach((pcm) => take(pcm));
  setStatus("listening");
  showRecording();
}

// The largest magnitude in each of four stretches: the waveform's outline.
function outline(pcm) {
  const size = Math.ceil(pcm.length / 4);
  return [0, 1, 2, 3].map((i) => {
    const stretch = pcm.subarray(i * size, (i + 1) * size);
    return stretch.reduce((largest, sample) => Math.max(largest, Math.abs(sample)), 0) / 32768;
  });
}

function onMessage(message) {
  if (message.type === "ready") {
    result.current().labels = message.labels;
    result.render();
  } else if (message.segment) {
    result.addResult(message.segment, message.type === "final");
  }
}

async function onEnd(problem) {
  if (recording) await recording.microphone.stop();
  recording = null;
  result.endLive();
  setDone();
  setProblem(problem);
  showRecording();
  showDownloads();
}

async function stopRecording() {
  setStatus("finishing");
  const { microphone, stream } = recording;
  find("record").disabled = true;
  await microphone.stop();
  stream.finish();
  recording = { microphone: { stop: async () => {} }, stream };
}

function showRecording() {
  const button = find("record");
  button.disabled = false;
  button.setAttribute("aria-pressed", String(Boolean(recording)));
  button.textContent = text(recording ? "stop" : "record");
  find("file").disabled = Boolean(recording);
  showDownloads();
}

find("language").onclick = () => {
  switchLanguage();
  showLanguage();
};
find("file").onchange = ({ target }) => recognise(target.files[0]);
find("record").onclick = () => (recording ? stopRecording() : startRecording());
find("key-form").onsubmit = async (event) => {
  event.preventDefault();
  useKey(find("key").value);
  find("key-form").hidden = true;
  await loadModel();
};
const drop = find("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") recognise(event.dataTransfer.files[0]);
  });
}
result.startPicture(explain);
showLanguage();
loadModel();
