// Elements, and how texts and numbers are shown.
const SVG = "http://www.w3.org/2000/svg";
const GLYPHS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

export const find = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// A token as it is shown: spaces and line breaks as signs.
export const glyph = (text) => [...text].map((c) => GLYPHS[c] ?? c).join("") || "∅";
export const percent = (p) => (p > 0 && p < 0.0005 ? "<0.1" : (100 * p).toFixed(p > 0 && p < 0.0995 ? 1 : 0)) + " %";
export const spoken = (text) => ({ " ": "space", "\n": "line break" })[text] ?? `“${text}”`;

// Of several buttons one is in the order of the Tab key; the arrow keys, Home and End go to the others.
export function rove(container, selector = "button") {
  container.addEventListener("keydown", (event) => {
    const buttons = [...container.querySelectorAll(selector)];
    const at = buttons.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -at, End: buttons.length - 1 - at }[event.key];
    if (at < 0 || step === undefined) return;
    event.preventDefault();
    buttons[Math.min(Math.max(at + step, 0), buttons.length - 1)].focus();
  });
}

export function press(buttons, chosen) {
  buttons.forEach((button, index) => {
    button.setAttribute("aria-pressed", index === chosen);
    button.tabIndex = index === chosen || (chosen < 0 && index === 0) ? 0 : -1;
  });
}
