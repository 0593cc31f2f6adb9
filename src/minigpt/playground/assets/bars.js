// Lists of tokens with a bar for each.
import { element, glyph, percent } from "./dom.js";

function bar(text, share, mark, amount, leftOut = false) {
  const fill = element("i");
  fill.style.width = `${100 * Math.max(0, share)}%`;
  const track = element("span", { class: "track" }, fill);
  if (mark !== null) {
    const line = element("u");
    line.style.left = `${100 * mark}%`;
    track.append(line);
  }
  const cells = [element("span", { class: "glyph" }, glyph(text)), track, element("span", { class: "amount" }, amount)];
  return element("li", leftOut ? { class: "left-out" } : {}, ...cells);
}

export function showCandidates(list, candidates) {
  const largest = Math.max(...candidates.map((c) => Math.max(c.probability, c.unfiltered)), 1e-9);
  list.replaceChildren(...candidates.map((c) =>
    bar(c.text, c.probability / largest, c.unfiltered / largest, percent(c.probability), c.probability === 0)));
}

export function showNeighbors(list, neighbors) {
  list.replaceChildren(...neighbors.map((n) => bar(n.text, n.cosine, null, n.cosine.toFixed(2))));
}
