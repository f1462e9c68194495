// Everything that talks to the server.

import { language, problemText, text } from "./texts.js";

const STREAM_PROTOCOL = "koser.stream.v1";
const KEY_PROTOCOL = "koser.key.";
let apiKey = sessionStorage.getItem("koser.key") ?? "";

export class ServerError extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

export function useKey(key) {
  apiKey = key.trim();
  sessionStorage.setItem("koser.key", apiKey);
}

export async function describeModel() {
  return (await send("/v1/model", {})).json();
}

export async function requestTimeline(file, format = "json") {
  const query = format === "json" ? "peaks=1200" : `format=${format}`;
  const body = new FormData();
  body.append("file", file);
  const response = await send(`/v1/timeline?${query}`, { method: "POST", body });
  return format === "json" ? response.json() : response.blob();
}

// What the label of the stretch from `start` to `end` seconds rests on.
export async function requestExplanation(file, { start, end }, signal) {
  const body = new FormData();
  body.append("file", file);
  const query = new URLSearchParams({ start, end, peaks: 600 });
  return (await send(`/v1/explain?${query}`, { method: "POST", body, signal })).json();
}

async function send(path, options) {
  const headers = { "Accept-Language": language() };
  if (apiKey) headers.Authorization = `Bearer ${apiKey}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new ServerError(0, text("offline"));
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({ detail: response.statusText }));
    throw new ServerError(response.status, problemText(problem));
  }
  return response;
}

// A stream of 16-bit PCM. `onMessage` gets each message, `onEnd` a problem in words or nothing.
export function openStream(samplingRate, onMessage, onEnd) {
  const url = new URL(`/v1/stream?sampling_rate=${samplingRate}`, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const protocols = [STREAM_PROTOCOL];
  if (apiKey) protocols.push(KEY_PROTOCOL + base64url(apiKey));
  const socket = new WebSocket(url, protocols);
  socket.binaryType = "arraybuffer";
  const waiting = [];
  let problem = "";
  socket.onopen = () => waiting.splice(0).forEach((message) => socket.send(message));
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "problem") problem = problemText(message.problem);
    else onMessage(message);
  };
  socket.onclose = ({ code }) => onEnd(problem || (code === 1000 ? "" : text("streamEnded")));
  const push = (message) => {
    if (socket.readyState === WebSocket.CONNECTING) waiting.push(message);
    else if (socket.readyState === WebSocket.OPEN) socket.send(message);
  };
  return { push, finish: () => push(JSON.stringify({ type: "end" })) };
}

function base64url(key) {
  return btoa(key).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
