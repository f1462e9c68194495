// What an explanation says in words: the few moments that mattered most.

const FAINT = 0.05; // nats; where nothing reaches it, no moment is worth a word
const WEAK = 0.25; // of the strongest moment
const SMEAR = 2; // cells: a stretch that is silenced holds three

// Up to `limit` moments { start, end, evidence }, the strongest first; times are those of `cells`.
export function strongest(cells, limit = 3) {
  const strength = (i) => Math.abs(cells[i].evidence);
  const order = [...cells.keys()].sort((a, b) => strength(b) - strength(a));
  const taken = new Set();
  const moments = [];
  for (const peak of order) {
    const { evidence } = cells[peak];
    if (moments.length === limit || strength(peak) < Math.max(FAINT, WEAK * strength(order[0]))) break;
    if (taken.has(peak)) continue;
    const belongs = (i) => i in cells && !taken.has(i) && cells[i].evidence / evidence >= 0.5;
    let [first, last] = [peak, peak];
    while (belongs(first - 1)) first -= 1;
    while (belongs(last + 1)) last += 1;
    // Its neighbours hold what spilt over from it: they are no moments of their own.
    for (let i = first - SMEAR; i <= last + SMEAR; i += 1) taken.add(i);
    moments.push({ start: cells[first].start, end: cells[last].end, evidence });
  }
  return moments;
}

// What the longest bar stands for: evidence as faint as noise is drawn faintly.
export function largest(items) {
  return Math.max(0.1, ...items.map(({ evidence }) => Math.abs(evidence)));
}
