// Section 4: what the head makes of the residual stream after each layer.
import { element, find, glyph, percent, spoken } from "./dom.js";

const layerName = (layer, last) => (layer === 0 ? "embedding" : layer === last ? `layer ${layer}, last` : `layer ${layer}`);

export function showLens(state) {
  const { tokens, lens } = state.inside;
  const last = lens.length - 1;
  const head = element("tr", {}, element("th", { scope: "row" }, "text"),
    ...tokens.map((token, index) => element("th", { scope: "col", class: index === state.token ? "chosen" : null }, glyph(token))));
  const rows = lens.map((cells, layer) => element("tr", {}, element("th", { scope: "row" }, layerName(layer, last)),
    ...cells.map((best, index) => {
      const [text, probability] = best[0];
      const title = best.map(([t, p]) => `${glyph(t)} ${percent(p)}`).join("\n");
      const cell = element("td", { title, class: index === state.token ? "chosen" : null }, glyph(text));
      cell.style.setProperty("--p", probability);
      return cell;
    })));
  find("lens-table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  find("lens-chosen").textContent = `After ${spoken(tokens[state.token])}`;
  find("lens-list").replaceChildren(...lens.map((cells, layer) => element("li", {},
    element("span", { class: "dim" }, layerName(layer, last)),
    element("span", { class: "glyphs" }, cells[state.token].map(([t, p]) => `${glyph(t)} ${percent(p)}`).join("   ")))));
  const scroll = find("lens-scroll");
  const column = head.children[state.token + 1];
  scroll.scrollLeft = column.offsetLeft - scroll.clientWidth + column.offsetWidth + 40;
}
