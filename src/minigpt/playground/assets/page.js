// The state of the page, and what changes it.
import { element, find, glyph, press, rove, spoken } from "./dom.js";
import { get, newest, post, Refusal } from "./api.js";
import { prepareAttention, showAttention, weightsOf } from "./attention.js";
import { prepareComparison } from "./compare.js";
import { prepareWriter } from "./writer.js";
import { showCandidates } from "./bars.js";
import { showEmbedding } from "./embedding.js";
import { showLens } from "./lens.js";
import { showPictures } from "./pictures.js";

const WAIT_MS = 120; // after the last key
// inside: of the model for the text; next: the distribution after it; token, head, cell: what is chosen.
const state = { run: null, checkpoint: "", prompt: "", inside: null, next: null, token: 0, head: { layer: 0, head: 0 }, cell: null };
const has = (part) => !(part in state.run.model.missing);
let comparison = null;

function sampling() {
  const topK = Number(find("top-k").value);
  const isAll = topK >= state.run.model.vocab_size;
  return { temperature: Number(find("temperature").value), top_k: isAll ? null : topK, top_p: Number(find("top-p").value) };
}

function report(error) {
  const known = error instanceof Refusal ? error.message : "The playground does not answer: is it still running?";
  find("problem").textContent = known;
}

function showTokens() {
  const { tokens, ids, num_tokens: count } = state.inside;
  const box = find("token-list");
  const hadFocus = box.contains(document.activeElement);
  const buttons = tokens.map((token, index) => element("button",
    { type: "button", class: "token", "aria-label": `${spoken(token)}, id ${ids[index]}`, onclick: () => chooseToken(index) },
    element("b", {}, glyph(token)), element("small", {}, String(ids[index]))));
  box.replaceChildren(...buttons);
  press(buttons, state.token);
  if (hadFocus) buttons[state.token].focus();
  const hidden = count > tokens.length ? ` Of ${count}, the last ${tokens.length} are shown.` : "";
  find("tokens-note").textContent = "The model reads numbers. Choose a token to follow it through the sections below." + hidden;
}

function chooseToken(index) {
  state.token = index;
  showInside(false);
}

function chooseHead(head) {
  state.head = head;
  state.cell = null;
  showAttention(state, { chooseHead, chooseToken }, false);
  showPictures(state);
  comparison.drawAttention();
}

function showInside(newText) {
  if (!state.inside) return;
  showTokens();
  if (has("embedding")) showEmbedding(state);
  if (has("attention")) showAttention(state, { chooseHead, chooseToken }, newText);
  if (has("lens")) showLens(state);
  showPictures(state);
}

function showNext() {
  const { candidates, kept } = state.next;
  showCandidates(find("candidates"), candidates);
  const size = state.run.model.vocab_size;
  find("kept").textContent = `${kept} of ${size} can be drawn; the ${candidates.length} most likely are shown.`;
}

const inspect = newest(async (signal) => {
  const body = { checkpoint: state.checkpoint, prompt: state.prompt };
  const inside = await post("api/inspect", body, signal);
  const next = has("prediction") ? await post("api/predict", { ...body, ...sampling(), tokens: [] }, signal) : null;
  Object.assign(state, { inside, next, token: inside.tokens.length - 1, cell: null });
  if (!weightsOf(inside, state.head)) state.head = { layer: 0, head: 0 };
  find("problem").textContent = "";
  showInside(true);
  if (next) showNext();
  await comparison.load();
});

const predict = newest(async (signal) => {
  const body = { checkpoint: state.checkpoint, prompt: state.prompt, ...sampling(), tokens: [] };
  state.next = await post("api/predict", body, signal);
  showNext();
  await comparison.load();
});

function showSliders() {
  const { temperature, top_k: topK, top_p: topP } = sampling();
  find("temperature-value").textContent = temperature === 0 ? "0, always the likeliest" : temperature.toFixed(2);
  find("top-k-value").textContent = topK === null ? "all" : topK;
  find("top-p-value").textContent = topP === 1 ? "all" : topP.toFixed(2);
}

function later(run) {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(() => run().catch(report), WAIT_MS);
  };
}

function showMissing() {
  for (const [part, reason] of Object.entries(state.run.model.missing)) {
    for (const section of part === "prediction" ? ["prediction", "text"] : [part]) {
      find(`${section}-view`).hidden = true;
      find(`${section}-missing`).hidden = false;
      find(`${section}-missing`).textContent = reason;
    }
  }
  if (!state.run.model.is_causal) {
    document.querySelectorAll(".earlier").forEach((span) => (span.textContent = "the others"));
    find("lens-meaning").textContent = "what stands at each place, not what follows";
  }
  document.querySelectorAll(".unit").forEach((span) => (span.textContent = state.run.model.unit));
}

function prepare() {
  const { model, checkpoints, first, name, max_prompt: maxPrompt } = state.run;
  const size = model.num_layers ? `, ${model.num_layers} layers` : "";
  find("about").textContent = `${name}: ${model.kind}, ${model.parameters.toLocaleString("en")} parameters${size}, `
    + `a context of ${model.block_size} ${model.unit}s`;
  find("checkpoint").replaceChildren(...checkpoints.map((file) =>
    element("option", { value: file.name, selected: file.name === first ? "" : null }, file.label)));
  state.checkpoint = first;
  Object.assign(find("top-k"), { max: model.vocab_size, value: model.vocab_size });
  Object.assign(find("prompt"), { value: model.example_prompt, maxLength: maxPrompt });
  state.prompt = find("prompt").value;
  showMissing();
  showSliders();
}

function listen() {
  const inspectLater = later(inspect);
  const predictLater = later(predict);
  rove(find("token-list"));
  find("ask").addEventListener("submit", (event) => event.preventDefault());
  find("sampling").addEventListener("submit", (event) => event.preventDefault());
  find("prompt").addEventListener("input", () => {
    state.prompt = find("prompt").value;
    inspectLater();
  });
  find("checkpoint").addEventListener("change", () => {
    state.checkpoint = find("checkpoint").value;
    inspectLater();
  });
  find("sampling").addEventListener("input", () => {
    showSliders();
    predictLater();
  });
  const redraw = () => {
    showInside(true);
    comparison.drawAttention();
  };
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("resize", redraw);
  prepareAttention(state);
  prepareWriter(state, sampling);
  comparison = prepareComparison(state, sampling, report);
}

try {
  state.run = await get("api/run");
  prepare();
  listen();
  await inspect();
} catch (error) {
  report(error);
}
