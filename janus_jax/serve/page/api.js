// The server's OpenAI forms: requests, streams, and errors of one line.

const KEY = "janus-api-key";

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

// What the server refused, or why it was not reached. status: of HTTP, 0 without a reply.
export class Refusal extends Error {
  constructor(message, status = 0) {
    super(message.trim().replace(/:\s*\n\s*/g, ": ").replace(/\s*\n\s*/g, "; "));
    this.status = status;
  }
}

async function refusal(reply) {
  const body = await reply.json().catch(() => null);
  const wait = reply.headers.get("Retry-After");
  const said = body?.error?.message ?? `The server answered ${reply.status} ${reply.statusText}.`;
  return new Refusal(wait ? `${said} Try again in ${wait} s.` : said, reply.status);
}

async function request(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const reply = await fetch(path, { ...options, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached. Is it still running?");
  });
  if (!reply.ok) throw await refusal(reply);
  return reply;
}

export async function model() {
  const reply = await request("v1/models");
  return (await reply.json()).data[0];
}

// The events of a streamed reply, parsed. Throws Refusal, also for a stream that ends before its
// [DONE], and an AbortError when `signal` stops it.
export async function* stream(path, body, signal) {
  const options = { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal };
  const reply = await request(path, options);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  const broken = new Refusal("The connection ended before the reply did.");
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : broken;
      });
      if (done) throw broken;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        const data = lines.map((line) => line.slice(5).trim()).join("\n");
        if (!data) continue;
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refusal(event.error.message);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
