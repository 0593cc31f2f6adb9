// Section 2: the row of the embedding that the chosen token picks.
import { find, spoken } from "./dom.js";
import { drawStrip } from "./canvas.js";
import { showNeighbors } from "./bars.js";

export function showEmbedding(state) {
  const id = state.inside.ids[state.token];
  const found = state.inside.embedding[id];
  if (!found) return;
  const { vocab_size: size, dim } = state.run.model;
  const text = state.inside.tokens[state.token];
  find("embedding-text").textContent = `${spoken(text)} has the id ${id}, so row ${id} of ${size}, with ${dim} numbers.`;
  find("onehot-label").textContent = `one-hot, ${size}`;
  find("row-label").textContent = `row ${id}, ${dim}`;
  drawStrip(find("onehot"), Array.from({ length: size }, (_, index) => Number(index === id)));
  drawStrip(find("row"), found.row);
  showNeighbors(find("neighbors"), found.neighbors);
}
