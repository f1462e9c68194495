// One colour and one dash pattern for each label, so that colour is never the only difference.

const KNOWN = ["angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "calm", "boredom"];
// Okabe and Ito's palette and neighbours, on light and on dark ground; each stands out 3:1.
const LIGHT = ["#c0392b", "#5c7a1f", "#7d3c98", "#b8730a", "#6b7580", "#1f6fb2", "#c2388e", "#13806f", "#85601f"];
const DARK = ["#ff8a7a", "#b4d463", "#c9a0e8", "#ffc35c", "#aab4bd", "#7cbcf2", "#f59ad2", "#6ad6c3", "#d6b071"];
const DASHES = [[], [7, 3], [2, 3], [10, 3, 2, 3], [], [7, 3], [2, 3], [10, 3, 2, 3], []];

const dark = matchMedia("(prefers-color-scheme: dark)");

export function onSchemeChange(redraw) {
  dark.addEventListener("change", redraw);
}

function place(label, labels) {
  const known = KNOWN.indexOf(label);
  return known >= 0 ? known : labels.indexOf(label) % KNOWN.length;
}

export function colorOf(label, labels) {
  return (dark.matches ? DARK : LIGHT)[place(label, labels)];
}

export function dashOf(label, labels) {
  return DASHES[place(label, labels)];
}
