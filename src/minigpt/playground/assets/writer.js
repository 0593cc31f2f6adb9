// Section 6: text that grows token by token; any alternative of any step can be chosen to go on from there.
import { element, find, glyph, percent, press, rove, spoken } from "./dom.js";
import { newest, stream } from "./api.js";

const steps = [];
const buttons = [];

export function prepareWriter(state, sampling) {
  const box = find("written");
  let asked = null; // the text and the checkpoint that the steps belong to, whatever is typed meanwhile
  rove(box, ".step");

  const write = newest(async (signal) => {
    const body = { ...sampling(), ...asked, tokens: steps.map((step) => step.token.id),
      max_new_tokens: Math.min(Math.max(Number(find("length").value), 1), 500), seed: Math.floor(Math.random() * 2 ** 31) };
    setStatus("writing …", true);
    for await (const step of stream("api/generate", body, signal)) add(step);
    setStatus(`${steps.length} written`);
  });
  const start = () => write().catch((error) => setStatus(error.message));

  function truncate(length) {
    steps.length = length;
    buttons.splice(length).forEach((button) => button.remove());
    find("alternatives-view").hidden = true;
  }

  function add(step) {
    const index = steps.push(step) - 1;
    // No button element: lines do not break within one, and a step may be a line break.
    const button = element("span", { role: "button", class: step.token.text.includes("\n") ? "step break" : "step",
      title: percent(step.token.probability), "aria-label": step.token.text.trim() ? null : spoken(step.token.text),
      onclick: () => choose(index), onfocus: () => choose(index) }, step.token.text);
    button.style.setProperty("--p", step.token.probability);
    button.tabIndex = index ? -1 : 0;
    buttons.push(button);
    box.append(button);
  }

  function choose(index) {
    press(buttons, index);
    const step = steps[index];
    const listed = step.alternatives.some((a) => a.id === step.token.id) ? step.alternatives : [...step.alternatives, step.token];
    find("alternatives-title").textContent = `Alternatives at step ${index + 1}, where ${spoken(step.token.text)} was drawn`;
    find("alternatives").replaceChildren(...listed.map((other) => element("button",
      { type: "button", "aria-pressed": other.id === step.token.id, onclick: () => replace(index, other) },
      glyph(other.text), " ", element("small", {}, percent(other.probability)))));
    find("alternatives-view").hidden = false;
  }

  function replace(index, other) {
    const step = { ...steps[index], token: other };
    truncate(index);
    add(step);
    buttons[index].focus();
    start();
  }

  function setStatus(text, busy = false) {
    find("stop-button").disabled = !busy;
    find("write-status").textContent = text;
  }

  find("write").addEventListener("submit", (event) => {
    event.preventDefault();
    asked = { checkpoint: state.checkpoint, prompt: state.prompt };
    find("written-prompt").textContent = asked.prompt;
    truncate(0);
    start();
  });
  find("stop-button").addEventListener("click", () => {
    write.cancel();
    setStatus("stopped");
  });
}
