// The picture: waveform with bands of emotion above, a curve for each label below.

import { colorOf, dashOf } from "./colors.js";
import { clock } from "./texts.js";

const LEFT = 48;
const BOTTOM = 22;
const GAP = 10;

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Draws `view`: duration, labels, peaks, segments, cells, newest (a partial result) and played.
export function draw(canvas, view) {
  const ratio = devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const area = { left: LEFT, right: width - 8, waveTop: 8, bottom: height - BOTTOM };
  area.waveBottom = area.waveTop + (area.bottom - area.waveTop) * 0.38;
  area.curveTop = area.waveBottom + GAP;
  const begin = Math.max(0, view.begin ?? 0);
  const span = Math.max(view.duration - begin, 0.001);
  const x = (seconds) => area.left + ((seconds - begin) / span) * (area.right - area.left);
  drawAxes(context, area, x, begin, view.duration);
  context.save();
  context.beginPath();
  context.rect(area.left, 0, area.right - area.left, height);
  context.clip();
  drawBands(context, area, x, view);
  drawWave(context, area, x, view);
  drawCurves(context, area, x, view);
  if (view.played !== undefined) drawPlayhead(context, area, x(view.played));
  context.restore();
}

export function secondsAt(canvas, clientX, view) {
  const { left, width } = canvas.getBoundingClientRect();
  const share = (clientX - left - LEFT) / (width - LEFT - 8);
  return Math.max(0, Math.min(1, share)) * view.duration;
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
    context.globalAlpha = 0.22;
    context.fillRect(x(segment.start), area.waveTop, x(segment.end) - x(segment.start), area.waveBottom - area.waveTop);
    context.globalAlpha = 1;
    context.fillRect(x(segment.start) + 0.5, area.waveBottom - 4, x(segment.end) - x(segment.start) - 1, 4);
  }
}

function drawWave(context, area, x, view) {
  const { peaks } = view;
  if (!peaks?.length) return;
  const middle = (area.waveTop + area.waveBottom - 4) / 2;
  const loudest = Math.max(...peaks, 1e-4);
  const reach = (area.waveBottom - area.waveTop - 8) / 2 / loudest;
  context.fillStyle = style("--wave");
  const seconds = (view.peaksEnd ?? view.duration) / peaks.length;
  const width = Math.max(1, x(seconds) - x(0) - 0.3);
  peaks.forEach((peak, i) => {
    const size = Math.max(0.5, peak * reach);
    context.fillRect(x(i * seconds), middle - size, width, 2 * size);
  });
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
