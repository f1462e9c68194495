// What was heard, as bars, a picture, a table and files.

import { colorOf, dashOf, onSchemeChange } from "./colors.js";
import { draw, secondsAt } from "./chart.js";
import { clock, labelName, percent, text } from "./texts.js";
import { fillWhy, focusButton, giveButton, labelButtons, whyButton } from "./why.js";

const find = (id) => document.getElementById(id);
const LIVE_SPAN = 60; // seconds that a running stream shows

let view = null; // what `chart.draw` shows, and `file` where there is one
let sound = null; // the object URL that the player has
let frame = 0;
let ask = null; // called with the part, { start, end }, that somebody asks about

export function current() {
  return view;
}

// Shows a finished timeline of a file, of which up to `explainable` seconds can be explained.
export function showTimeline(timeline, file, explainable = 0) {
  const whole = { start: 0, end: timeline.duration };
  view = { ...timeline, file, explainable, whole };
  find("result").hidden = false;
  giveSound(file);
  render();
}

// Begins a stream's picture, which `addResult` and `addPeaks` continue.
export function beginLive(labels) {
  view = { labels, duration: 0, segments: [], cells: [], speech: [], peaks: [], isLive: true };
  find("result").hidden = false;
  giveSound(null);
  render();
}

export function addPeaks(peaks, duration) {
  view.peaks.push(...peaks);
  view.duration = duration;
  view.peaksEnd = duration;
  view.begin = duration - LIVE_SPAN;
  drawSoon();
}

export function addResult(segment, isFinal) {
  if (isFinal) {
    view.segments.push(segment);
    view.cells = [...view.cells.filter((cell) => cell.isSettled || cell.end <= segment.start), { ...segment, isSettled: true }];
    view.newest = null;
    fillTable();
  } else {
    const end = segment.end;
    const before = view.cells.at(-1)?.end ?? segment.start;
    // Of a partial result only what is new: its window reaches back over older ones.
    view.cells.push({ ...segment, start: Math.max(Math.min(before, end), segment.start), end });
    view.newest = null;
    view.now = segment;
  }
  fillBars();
  drawSoon();
}

// Notes which part is being explained; null for none.
export function setAsking(part) {
  if (!view?.file) return;
  view.asking = part;
  labelButtons(view);
}

// Shows an explanation in the picture and below it.
export function showWhy(why) {
  view.why = why;
  render();
  find("timeline").scrollIntoView({ block: "nearest" });
  find("why-title").focus({ preventScroll: true });
  find("why").scrollIntoView({ block: "nearest" });
}

function closeWhy() {
  const { why } = view;
  view.why = null;
  render();
  focusButton(why);
}

export function endLive() {
  view.isLive = false;
  view.begin = 0;
  view.now = null;
  render();
}

export function render() {
  if (!view) return;
  fillBars();
  fillLegend();
  fillTable();
  fillWhy(view.why);
  drawSoon();
}

function giveSound(file) {
  const player = find("player");
  if (sound) URL.revokeObjectURL(sound);
  sound = file ? URL.createObjectURL(file) : null;
  player.hidden = !sound;
  if (sound) player.src = sound;
  else player.removeAttribute("src");
}

// The mean over all speech, each segment weighing as long as it lasts.
function overall() {
  if (view.now) return view.now.probabilities;
  const total = view.segments.reduce((sum, each) => sum + each.end - each.start, 0);
  if (!total) return null;
  return Object.fromEntries(
    view.labels.map((label) => [
      label,
      view.segments.reduce((sum, each) => sum + each.probabilities[label] * (each.end - each.start), 0) / total,
    ]),
  );
}

function fillBars() {
  const probabilities = overall();
  const list = find("bars");
  list.hidden = !probabilities;
  if (!probabilities) {
    find("summary").textContent = view.isLive ? text("listening") : text("noSpeech");
    return;
  }
  const best = view.labels.reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));
  say(find("summary"), text("summary", { label: labelName(best), percent: percent(probabilities[best]) }));
  while (list.children.length > view.labels.length) list.lastChild.remove();
  while (list.children.length < view.labels.length) {
    const item = document.createElement("li");
    const bar = Object.assign(document.createElement("progress"), { max: 1 });
    const value = Object.assign(document.createElement("span"), { className: "value" });
    item.append(document.createElement("span"), bar, value);
    list.append(item);
  }
  view.labels.forEach((label, i) => {
    const item = list.children[i];
    const [name, bar, value] = item.children;
    item.classList.toggle("best", label === best);
    name.textContent = labelName(label);
    bar.value = probabilities[label];
    bar.setAttribute("aria-label", labelName(label));
    value.textContent = `${percent(probabilities[label])} %`;
  });
}

// A screen reader hears a text once, not with every partial result that repeats it.
function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

function fillLegend() {
  const items = view.labels.map((label) => {
    const item = document.createElement("li");
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const stroke = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const place = { x1: 0, y1: 6, x2: 26, y2: 6, "stroke-width": 3 };
    for (const [name, value] of Object.entries(place)) stroke.setAttribute(name, value);
    stroke.setAttribute("stroke", colorOf(label, view.labels));
    stroke.setAttribute("stroke-dasharray", dashOf(label, view.labels).join(" "));
    picture.append(stroke);
    item.append(picture, labelName(label));
    return item;
  });
  find("legend").replaceChildren(...items);
}

function fillTable() {
  const rows = view.segments.map((segment) => {
    const row = document.createElement("tr");
    row.classList.toggle("open", segment.label === null);
    const start = document.createElement("td");
    const time = clock(segment.start);
    if (sound) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = time;
      button.setAttribute("aria-label", text("jump", { time }));
      button.onclick = () => play(segment.start);
      start.append(button);
    } else {
      start.textContent = time;
    }
    const cells = [clock(segment.end), labelName(segment.label), `${percent(segment.confidence)} %`].map((words) =>
      Object.assign(document.createElement("td"), { textContent: words }),
    );
    cells[2].className = "number";
    row.append(start, ...cells);
    if (view.file) row.append(whyCell(segment));
    return row;
  });
  find("segments").tBodies[0].replaceChildren(...rows);
  find("why-column").hidden = !view.file;
  find("why-all").hidden = !view.file || !rows.length || !isExplainable(view.whole);
  if (view.file) {
    giveButton(find("why-all"), view.whole, ask);
    labelButtons(view);
  }
  find("timeline").setAttribute("aria-label", pictureLabel());
}

function pictureLabel() {
  const { why, duration, segments } = view;
  if (why) return text("whyPicture", { from: clock(why.start), to: clock(why.end) });
  return text("timelineLabel", { seconds: duration.toFixed(1), count: segments.length });
}

function whyCell(segment) {
  const cell = document.createElement("td");
  cell.className = "why";
  if (isExplainable(segment)) cell.append(whyButton(segment, ask));
  return cell;
}

function isExplainable({ start, end }) {
  return end - start <= view.explainable + 1e-6;
}

function play(seconds) {
  const player = find("player");
  player.currentTime = seconds;
  player.play().catch(() => {}); // a format that the browser cannot play: the picture still stands
}

function drawSoon() {
  if (frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    if (view) draw(find("timeline"), view);
  });
}

// `onWhy` is called with the part, { start, end }, that somebody asks about.
export function startPicture(onWhy) {
  ask = onWhy;
  find("why-close").onclick = closeWhy;
  const canvas = find("timeline");
  const player = find("player");
  new ResizeObserver(drawSoon).observe(canvas);
  onSchemeChange(() => render());
  player.addEventListener("timeupdate", () => {
    view.played = player.currentTime;
    drawSoon();
  });
  canvas.addEventListener("click", (event) => {
    if (sound) play(secondsAt(canvas, event.clientX, view));
  });
}
