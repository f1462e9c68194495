// The picture: waveform with bands of emotion above, a curve for each label below.

import { colorOf, dashOf } from "./colors.js";
import { largest } from "./evidence.js";
import { clock, signed } from "./texts.js";

const LEFT = 48;
const BOTTOM = 22;
const GAP = 10;

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Draws `view`: duration, labels, peaks, segments, cells, newest (a partial result) and played; of
// a view with `why`, an explanation, only the stretch that it explains.
export function draw(canvas, view) {
  const ratio = devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const area = { left: LEFT, right: width - 8, waveTop: 8, bottom: height - BOTTOM };
  area.waveBottom = area.waveTop + (area.bottom - area.waveTop) * (view.why ? 0.6 : 0.38);
  area.curveTop = area.waveBottom + GAP;
  const { begin, end } = extentOf(view);
  const x = (seconds) => area.left + ((seconds - begin) / (end - begin)) * (area.right - area.left);
  drawAxes(context, area, x, begin, end);
  if (view.why) drawScale(context, area, view.why);
  context.save();
  context.beginPath();
  context.rect(area.left, 0, area.right - area.left, height);
  context.clip();
  drawBands(context, area, x, view);
  drawWave(context, area, x, view);
  if (view.why) drawEvidence(context, area, x, view.why);
  drawCurves(context, area, x, view);
  if (view.played !== undefined) drawPlayhead(context, area, x(view.played));
  context.restore();
}

// The seconds that the picture shows.
function extentOf({ why, begin = 0, duration }) {
  if (why) return { begin: why.start, end: why.end };
  const first = Math.max(0, begin);
  return { begin: first, end: Math.max(duration, first + 0.001) };
}

export function secondsAt(canvas, clientX, view) {
  const { left, width } = canvas.getBoundingClientRect();
  const share = (clientX - left - LEFT) / (width - LEFT - 8);
  const { begin, end } = extentOf(view);
  return begin + Math.max(0, Math.min(1, share)) * (end - begin);
}

function drawAxes(context, area, x, begin, end) {
  context.strokeStyle = style("--line");
  context.fillStyle = style("--soft");
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const share of [0, 0.5, 1]) {
    const y = area.bottom - share * (area.bottom - area.curveTop);
    line(context, area.left, y, area.right, y);
    context.fillText(`${100 * share} %`, area.left - 5, y);
  }
  context.textBaseline = "top";
  const step = niceStep((end - begin) / Math.max(2, (area.right - area.left) / 80));
  for (let time = Math.ceil(begin / step) * step; time <= end + 1e-6; time += step) {
    context.textAlign = time === 0 ? "left" : x(time) > area.right - 20 ? "right" : "center";
    line(context, x(time), area.bottom, x(time), area.bottom + 4);
    context.fillText(clock(time, step < 1 ? 1 : 0), x(time), area.bottom + 7);
  }
}

function niceStep(seconds) {
  return [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((step) => step >= seconds) ?? 1200;
}

function drawBands(context, area, x, view) {
  for (const segment of view.segments) {
    if (segment.label === null) continue;
    context.fillStyle = colorOf(segment.label, view.labels);
    // Behind evidence, which has colours of its own, only the line below.
    context.globalAlpha = view.why ? 0 : 0.22;
    context.fillRect(x(segment.start), area.waveTop, x(segment.end) - x(segment.start), area.waveBottom - area.waveTop);
    context.globalAlpha = 1;
    context.fillRect(x(segment.start) + 0.5, area.waveBottom - 4, x(segment.end) - x(segment.start) - 1, 4);
  }
}

function drawWave(context, area, x, view) {
  const { why } = view;
  const peaks = why ? why.peaks : view.peaks;
  if (!peaks?.length) return;
  const begin = why?.start ?? 0;
  const middle = middleOf(area);
  const loudest = Math.max(...peaks, 1e-4);
  const reach = (area.waveBottom - area.waveTop - 8) / 2 / loudest;
  context.fillStyle = style("--wave");
  context.globalAlpha = why ? 0.45 : 1;
  const seconds = (why ? why.end - why.start : (view.peaksEnd ?? view.duration)) / peaks.length;
  const width = Math.max(1, x(seconds) - x(0) - 0.3);
  peaks.forEach((peak, i) => {
    const size = Math.max(0.5, peak * reach);
    context.fillRect(x(begin + i * seconds), middle - size, width, 2 * size);
  });
  context.globalAlpha = 1;
}

function middleOf(area) {
  return (area.waveTop + area.waveBottom - 4) / 2;
}

// What speaks for the label goes up, what speaks against it down: colour is not the only difference.
function drawEvidence(context, area, x, why) {
  const middle = middleOf(area);
  const reach = (middle - area.waveTop) / largest(why.cells);
  context.globalAlpha = 0.85;
  for (const { start, end, evidence } of why.cells) {
    context.fillStyle = style(evidence < 0 ? "--against" : "--for");
    const [left, right] = [x(why.start + start), x(why.start + end)];
    const height = Math.abs(evidence) * reach;
    context.fillRect(left + 0.5, evidence < 0 ? middle : middle - height, Math.max(1, right - left - 1), height);
  }
  context.globalAlpha = 1;
  context.strokeStyle = style("--ink");
  context.lineWidth = 1;
  line(context, area.left, middle, area.right, middle);
}

function drawScale(context, area, why) {
  const worth = largest(why.cells);
  const middle = middleOf(area);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const [value, y] of [[worth, area.waveTop + 5], [0, middle], [-worth, 2 * middle - area.waveTop - 5]]) {
    context.fillText(value ? signed(value) : "0", area.left - 5, y);
  }
}

function drawCurves(context, area, x, view) {
  const y = (probability) => area.bottom - probability * (area.bottom - area.curveTop);
  const cells = view.newest ? [...view.cells, view.newest] : view.cells;
  context.lineWidth = 2;
  context.lineJoin = "round";
  for (const label of view.labels) {
    context.strokeStyle = colorOf(label, view.labels);
    context.setLineDash(dashOf(label, view.labels));
    context.beginPath();
    let before = null;
    cells.forEach((cell, i) => {
      const middle = x((cell.start + cell.end) / 2);
      const value = y(cell.probabilities[label]);
      // A pause in the speech is a gap in the curve.
      if (before === null || cell.start > before + 0.05) {
        context.moveTo(x(cell.start), value);
        context.lineTo(middle, value);
      } else {
        context.lineTo(middle, value);
      }
      before = cell.end;
      const next = cells[i + 1];
      if (!next || next.start > before + 0.05) context.lineTo(x(cell.end), value);
    });
    context.stroke();
  }
  context.setLineDash([]);
}

function drawPlayhead(context, area, position) {
  context.strokeStyle = style("--accent");
  context.lineWidth = 2;
  line(context, position, area.waveTop, position, area.bottom);
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}
