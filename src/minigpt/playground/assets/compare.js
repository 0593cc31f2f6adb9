// Section 7: an early and a late checkpoint of the run, side by side.
import { element, find } from "./dom.js";
import { newest, post, stream } from "./api.js";
import { drawMap } from "./canvas.js";
import { showCandidates } from "./bars.js";
import { weightsOf } from "./attention.js";

const SCALE = 1000;

function makeSide(name, state, sampling) {
  const box = find(name);
  box.append(find("side").content.cloneNode(true));
  const select = find(`${name}-checkpoint`);
  const part = (kind) => box.querySelector(`.side-${kind}`);
  let inside = null;

  const load = newest(async (signal) => {
    const body = { checkpoint: select.value, prompt: state.prompt };
    const missing = state.run.model.missing;
    inside = await post("api/inspect", body, signal);
    part("attention").hidden = "attention" in missing;
    part("prediction").hidden = part("text").hidden = "prediction" in missing;
    drawAttention();
    if ("prediction" in missing) return;
    const next = await post("api/predict", { ...body, ...sampling(), tokens: [] }, signal);
    showCandidates(part("prediction").querySelector("ul"), next.candidates.slice(0, 8));
  });

  const write = newest(async (signal, seed) => {
    const text = part("text").querySelector("p");
    text.textContent = state.prompt;
    const body = { ...sampling(), checkpoint: select.value, prompt: state.prompt, tokens: [], max_new_tokens: 120, seed };
    for await (const step of stream("api/generate", body, signal)) text.append(step.token.text);
  });

  function drawAttention() {
    const weights = inside && weightsOf(inside, state.head);
    if (weights) drawMap(part("attention").querySelector("canvas"), weights, SCALE);
  }

  return { select, load, write, drawAttention };
}

export function prepareComparison(state, sampling, report) {
  const sides = ["early", "late"].map((name) => makeSide(name, state, sampling));
  const files = state.run.checkpoints;
  const first = files.findIndex((file) => file.name === state.run.first);
  [0, first].forEach((chosen, index) => {
    const options = files.map((file) => element("option", { value: file.name }, file.label));
    sides[index].select.replaceChildren(...options);
    sides[index].select.selectedIndex = chosen;
    sides[index].select.addEventListener("change", () => sides[index].load().catch(report));
  });
  if (files.length < 2) {
    find("compare-view").hidden = true;
    find("compare-note").textContent = "There is one checkpoint. Train with callbacks.checkpoints.every_n_steps=50 "
      + "callbacks.checkpoints.keep_last_n=10 to compare several.";
    return { load: async () => {}, drawAttention: () => {} };
  }
  find("write-both").hidden = "prediction" in state.run.model.missing;
  find("write-both").addEventListener("submit", async (event) => {
    event.preventDefault();
    const status = find("both-status");
    const seed = Math.floor(Math.random() * 2 ** 31);
    status.textContent = "writing …";
    try {
      for (const side of sides) await side.write(seed);
      status.textContent = "written, with the same random numbers";
    } catch (error) {
      status.textContent = error.message;
    }
  });
  return {
    load: () => Promise.all(sides.map((side) => side.load())),
    drawAttention: () => sides.forEach((side) => side.drawAttention()),
  };
}
