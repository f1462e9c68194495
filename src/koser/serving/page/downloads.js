// Results as files: JSON and CSV from what the page has, the rest from the server.

import { requestTimeline } from "./api.js";

export const FORMATS = { json: "JSON", csv: "CSV", srt: "SRT", vtt: "WebVTT", textgrid: "TextGrid", audacity: "Audacity", rttm: "RTTM" };
const ENDINGS = { textgrid: "TextGrid", audacity: "txt" };

// A stream has no file that the server could be asked about again.
export function formatsOf(view) {
  return Object.keys(FORMATS).filter((format) => view.file || format === "json" || format === "csv");
}

export async function download(view, format) {
  const stem = view.file ? view.file.name.replace(/\.[^.]*$/, "") : "koser";
  save(await contentOf(view, format), `${stem}.${ENDINGS[format] ?? format}`);
}

async function contentOf(view, format) {
  if (format === "json") return jsonOf(view);
  if (format === "csv") return csvOf(view);
  return requestTimeline(view.file, format);
}

function jsonOf({ duration, labels, segments }) {
  const values = { duration, labels, segments };
  return new Blob([`${JSON.stringify(values, null, 2)}\n`], { type: "application/json" });
}

function csvOf({ labels, segments }) {
  const rows = [["start", "end", "label", "confidence", ...labels]];
  for (const each of segments) {
    const shares = labels.map((label) => each.probabilities[label]);
    rows.push([each.start, each.end, each.label ?? "", each.confidence, ...shares]);
  }
  const text = rows.map((row) => row.map(quote).join(",")).join("\r\n");
  return new Blob([`${text}\r\n`], { type: "text/csv;charset=utf-8" });
}

function quote(cell) {
  const text = String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
