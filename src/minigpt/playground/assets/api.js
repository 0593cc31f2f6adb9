// What the page asks the server for.

export class Refusal extends Error {}

async function check(response) {
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refusal(body.error ?? `the server answered ${response.status}`);
}

export const get = async (path) => (await check(await fetch(path))).json();

async function send(path, body, signal) {
  const headers = { "content-type": "application/json" };
  return check(await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal }));
}

export const post = async (path, body, signal) => (await send(path, body, signal)).json();

// The lines of a response as they arrive, each as an object.
export async function* stream(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

// A function of which the newest call alone runs: an earlier one is cancelled, and gives null.
export function newest(run) {
  let controller = null;
  const call = async (...args) => {
    controller?.abort();
    const own = (controller = new AbortController());
    try {
      return await run(own.signal, ...args);
    } catch (error) {
      if (own.signal.aborted) return null;
      throw error;
    }
  };
  call.cancel = () => controller?.abort();
  return call;
}
