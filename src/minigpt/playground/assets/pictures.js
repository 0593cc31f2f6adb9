// The four pictures with which a GPT is usually explained, drawn for the text that is typed.
import { find, glyph, percent, spoken, svg } from "./dom.js";
import { weightsOf } from "./attention.js";

const text = (x, y, content, attributes = {}) => svg("text", { x, y, ...attributes }, content);
const rect = (x, y, width, height, name, attributes = {}) => svg("rect", { x, y, width, height, rx: 3, class: name, ...attributes });
const arrow = (x1, y1, x2, y2) => svg("g", { class: "wire" }, svg("path", {
  d: `M${x1} ${y1} L${x2} ${y2} M${x2 - 5} ${y2 - 4} L${x2} ${y2} L${x2 - 5} ${y2 + 4}` }));

function draw(name, label, ...parts) {
  const picture = find(`picture-${name}`).querySelector("svg");
  picture.setAttribute("aria-label", label);
  picture.replaceChildren(...parts);
}

const tail = (state, count) => [...state.inside.tokens.slice(-count).map(glyph).join("")].slice(-count).join("");

function bars(candidates, x, key) {
  const largest = Math.max(...candidates.map((c) => c[key]), 1e-9);
  return candidates.slice(0, 5).flatMap((c, index) => [
    text(x, 37 + 26 * index, glyph(c.text).slice(0, 2), { "text-anchor": "end" }),
    rect(x + 6, 27 + 26 * index, 4 + (50 * c[key]) / largest, 12, index ? "fill" : "lit"),
    text(x + 64, 37 + 26 * index, percent(c[key]), { class: "small" }),
  ]);
}

function drawPrediction(state) {
  const best = state.next?.candidates ?? [];
  draw("prediction", best.length ? `After your text ${spoken(best[0].text)} is most likely` : "This model predicts no next token",
    rect(2, 64, 84, 42, "box"), text(44, 89, tail(state, 10), { "text-anchor": "middle" }), arrow(88, 85, 106, 85),
    rect(108, 56, 50, 58, "box"), text(133, 89, "GPT", { "text-anchor": "middle", class: "plain" }),
    arrow(160, 85, 178, 85), ...bars(best, 202, "unfiltered"));
}

function drawEmbedding(state) {
  const id = state.inside.ids[state.token];
  const found = state.inside.embedding[id];
  if (!found) return draw("embedding", "This model has no embedding", text(150, 85, "no embedding", { "text-anchor": "middle" }));
  const rows = 11;
  const lit = Math.min(rows - 1, Math.floor((id / state.run.model.vocab_size) * rows));
  const largest = Math.max(...found.row.map(Math.abs));
  const parts = [text(4, 14, `${glyph(state.inside.tokens[state.token])} = ${id}`), text(76, 14, "matrix", { class: "small" }),
    text(222, 14, `row ${id}`, { class: "small" })];
  for (let row = 0; row < rows; row++) {
    parts.push(rect(30, 22 + 13 * row, 16, 11, row === lit ? "lit" : "faint"));
    for (let column = 0; column < 9; column++) {
      const opacity = row === lit ? 0.15 + (0.85 * Math.abs(found.row[column] ?? 0)) / largest : 1;
      parts.push(rect(76 + 12 * column, 22 + 13 * row, 10, 11, row === lit ? "lit" : "faint", { "fill-opacity": opacity }));
    }
    parts.push(text(38, 31 + 13 * row, row === lit ? "1" : "0", { "text-anchor": "middle", class: "small" }));
  }
  parts.push(text(56, 94, "×"), arrow(188, 27.5 + 13 * lit, 216, 27.5 + 13 * lit));
  found.row.slice(0, 6).forEach((value, index) => parts.push(text(222, 40 + 20 * index, value.toFixed(2))));
  parts.push(text(222, 160, "…"));
  draw("embedding", `${spoken(state.inside.tokens[state.token])} picks row ${id}`, ...parts);
}

function drawBlock(state) {
  const weights = weightsOf(state.inside, state.head);
  const shown = Math.min(8, state.inside.tokens.length);
  const first = state.inside.tokens.length - shown;
  const x = (index) => 26 + 24 * index;
  const parts = [];
  const query = state.inside.tokens.length - 1;
  for (let index = 0; index < shown; index++) {
    const weight = weights ? weights[query][first + index] / 1000 : 0;
    if (weight > 0) {
      parts.push(svg("line", { class: "line", x1: x(index), y1: 140, x2: x(shown - 1), y2: 92, "stroke-width": 0.5 + 4 * weight, "stroke-opacity": Math.sqrt(weight) }));
    }
    parts.push(text(x(index), 156, glyph(state.inside.tokens[first + index]).slice(0, 2), { "text-anchor": "middle" }));
  }
  const end = x(shown - 1);
  parts.push(rect(end - 12, 76, 24, 16, "lit"), text(end + 18, 89, "+ attention", { class: "plain" }),
    svg("path", { class: "wire", d: `M${end} 76 L${end} 58` }), rect(end - 22, 40, 44, 18, "box"),
    text(end, 53, "MLP", { "text-anchor": "middle", class: "plain" }), text(end + 28, 53, "+ MLP", { class: "plain" }),
    svg("path", { class: "wire", d: `M${end} 40 L${end} 20 M${end - 4} 26 L${end} 20 L${end + 4} 26` }),
    text(8, 22, `${state.run.model.num_layers} of these blocks`, { class: "plain" }));
  draw("block", weights ? "The last token takes from those before it" : "This model has no such block", ...parts);
}

function drawHead(state) {
  const best = state.next?.candidates ?? [];
  const vector = state.inside.head_input;
  const largest = Math.max(...vector.map(Math.abs), 1e-9);
  const parts = [text(4, 14, "last row", { class: "small" }), text(62, 14, `${state.run.model.vocab_size} columns`, { class: "small" })];
  for (let row = 0; row < 8; row++) {
    const opacity = 0.15 + (0.85 * Math.abs(vector[row] ?? 0)) / largest;
    parts.push(rect(12, 26 + 16 * row, 18, 13, vector.length ? "lit" : "faint", { "fill-opacity": opacity }));
    for (let column = 0; column < 6; column++) parts.push(rect(54 + 13 * column, 26 + 16 * row, 11, 13, "faint"));
  }
  parts.push(text(38, 92, "×"), arrow(138, 86, 176, 86), text(136, 76, "softmax", { class: "small" }), ...bars(best, 202, "unfiltered"));
  draw("head", best.length ? `The head gives ${spoken(best[0].text)} ${percent(best[0].unfiltered)}` : "No next token", ...parts);
}

export function showPictures(state) {
  drawPrediction(state);
  drawEmbedding(state);
  drawBlock(state);
  drawHead(state);
}
