// Why a stretch got its label: the buttons that ask, and what is said below the picture.

import { largest, strongest } from "./evidence.js";
import { clock, labelName, percent, signed, text } from "./texts.js";

const find = (id) => document.getElementById(id);

// A button that asks about `part`, { start, end } in seconds; `labelButtons` says what is on it.
export function whyButton(part, ask) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "why" });
  giveButton(button, part, ask);
  return button;
}

export function giveButton(button, part, ask) {
  button.dataset.start = part.start;
  button.dataset.end = part.end;
  button.onclick = () => ask(part);
}

// While an answer is waited for, its button ends that.
export function labelButtons({ asking }) {
  for (const button of document.querySelectorAll("button.why")) {
    const words = text(asking && isFor(button, asking) ? "whyStop" : button.id ? "whyAll" : "why");
    const [from, to] = [clock(Number(button.dataset.start)), clock(Number(button.dataset.end))];
    button.textContent = words;
    button.setAttribute("aria-label", text("whyLabel", { words, from, to }));
  }
}

export function focusButton(part) {
  [...document.querySelectorAll("button.why")].find((button) => isFor(button, part))?.focus();
}

function isFor(button, { start, end }) {
  return Number(button.dataset.start) === start && Number(button.dataset.end) === end;
}

// Says what `why`, an answer of the server and where its part ends, is; hides all of it for null.
export function fillWhy(why) {
  find("why").hidden = !why;
  if (!why) return;
  const label = labelName(why.best);
  find("why-title").textContent = text("whyTitle", { from: clock(why.start), to: clock(why.end) });
  find("why-summary").textContent = text("whySummary", { label, percent: percent(why.confidence) });
  const moments = strongest(why.cells).map(({ start, end, evidence }) =>
    text(evidence < 0 ? "momentAgainst" : "momentFor", {
      from: clock(why.start + start),
      to: clock(why.start + end),
      label,
      worth: signed(evidence),
    }),
  );
  find("why-moments").replaceChildren(...(moments.length ? moments : [text("noMoment")]).map(item));
  find("why-words").hidden = !why.words.length;
  const scale = largest(why.words);
  find("why-words").replaceChildren(...why.words.map((word) => wordItem(word, scale)));
}

function item(words) {
  return Object.assign(document.createElement("li"), { textContent: words });
}

function wordItem(word, scale) {
  const element = item("");
  const told = signed(word.evidence);
  if (Number(told) !== 0) element.className = word.evidence < 0 ? "against" : "for";
  element.style.setProperty("--share", Math.abs(word.evidence) / scale);
  const spoken = Object.assign(document.createElement("span"), { textContent: word.text });
  const worth = Object.assign(document.createElement("span"), { className: "worth", textContent: told });
  element.append(spoken, " ", worth);
  return element;
}
