// Section 3: a map for each head, one of them large, and lines from the chosen token.
import { element, find, glyph, percent, press, rove, spoken, svg } from "./dom.js";
import { drawMap, drawThumbnail } from "./canvas.js";

const SCALE = 1000; // of the weights that the server sends
const MAX_LETTERS = 4; // of a token, in the picture of the lines
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export const weightsOf = (inside, { layer, head }) => inside.attention[layer]?.[head];

function showHeads(state, choose) {
  const box = find("heads");
  const buttons = [];
  const rows = state.inside.attention.map((heads, layer) => {
    const row = heads.map((weights, head) => {
      const canvas = element("canvas", { "aria-hidden": "true" });
      drawThumbnail(canvas, weights, SCALE);
      const label = `Layer ${layer + 1}, head ${head + 1}`;
      const button = element("button", { type: "button", class: "head", "aria-label": label, title: label }, canvas);
      button.addEventListener("click", () => choose({ layer, head }));
      buttons.push(button);
      return button;
    });
    return element("div", { class: "heads" }, element("span", {}, `Layer ${layer + 1}`), ...row);
  });
  const focused = [...box.querySelectorAll("button")].indexOf(document.activeElement);
  box.replaceChildren(...rows);
  buttons[focused]?.focus();
}

function showMap(state) {
  const weights = weightsOf(state.inside, state.head);
  const { layer, head } = state.head;
  find("map-title").textContent = `Layer ${layer + 1}, head ${head + 1}`;
  const perLayer = state.inside.attention[0].length;
  press([...find("heads").querySelectorAll("button")], layer * perLayer + head);
  drawMap(find("map"), weights, SCALE, state.cell, state.inside.tokens.map(glyph));
}

function showCell(state) {
  const { query, key } = state.cell;
  const { tokens } = state.inside;
  const weight = weightsOf(state.inside, state.head)[query][key] / SCALE;
  find("map-value").textContent = state.run.model.is_causal && key > query
    ? `${spoken(tokens[query])} (${query + 1}) comes before ${spoken(tokens[key])} (${key + 1}) and cannot see it.`
    : `${spoken(tokens[query])} (${query + 1}) takes ${percent(weight)} from ${spoken(tokens[key])} (${key + 1}).`;
  showMap(state);
}

function showLines(state, chooseToken) {
  const { tokens } = state.inside;
  const weights = weightsOf(state.inside, state.head)[state.token];
  const letters = tokens.map((token) => [...glyph(token)].slice(0, MAX_LETTERS).join(""));
  const step = 14 + 8 * Math.max(...letters.map((word) => word.length)); // pixels from a token to the next
  const x = (index) => step * (index + 0.5) + 8;
  const label = `${spoken(tokens[state.token])} attends most to ${spoken(tokens[weights.indexOf(Math.max(...weights))])}`;
  const width = step * tokens.length + 16;
  const picture = svg("svg", { width, height: 150, viewBox: `0 0 ${width} 150`, role: "img", "aria-label": label });
  weights.forEach((weight, key) => {
    if (weight < 5) return;
    const line = { class: "line", x1: x(state.token), y1: 122, x2: x(key), y2: 28, "stroke-width": 1 + (5 * weight) / SCALE };
    picture.append(svg("line", { ...line, "stroke-opacity": Math.sqrt(weight / SCALE) }));
  });
  letters.forEach((word, index) => {
    const shared = { x: x(index), "text-anchor": "middle" };
    picture.append(svg("text", { ...shared, y: 20 }, word));
    const name = index === state.token ? "pick chosen" : "pick";
    picture.append(svg("text", { ...shared, y: 140, class: name, onclick: () => chooseToken(index) }, word));
  });
  const box = find("lines");
  box.replaceChildren(picture);
  if (x(state.token) > box.clientWidth) box.scrollLeft = x(state.token) - box.clientWidth + 2 * step;
  find("lines-title").textContent = `From ${spoken(tokens[state.token])} to those it attends to`;
}

export function showAttention(state, { chooseHead, chooseToken }, newText) {
  if (newText) showHeads(state, chooseHead);
  if (!state.cell) find("map-value").textContent = "Hover a cell, or move with the arrow keys.";
  showMap(state);
  showLines(state, chooseToken);
}

export function prepareAttention(state) {
  const canvas = find("map");
  rove(find("heads"));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const count = state.inside.tokens.length;
    const at = (place, size) => Math.min(count - 1, Math.max(0, Math.floor((place / size) * count)));
    state.cell = { query: at(event.clientY - box.top, box.height), key: at(event.clientX - box.left, box.width) };
    showCell(state);
  });
  canvas.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const last = state.inside.tokens.length - 1;
    const { query, key } = state.cell ?? { query: last, key: last };
    const inside = (value) => Math.min(last, Math.max(0, value));
    state.cell = { query: inside(query + move[0]), key: inside(key + move[1]) };
    showCell(state);
  });
}
