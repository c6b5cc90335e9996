// Questions and their answers.

import { stream } from "./api.js";
import { following, make, say, trouble } from "./dom.js";

// A picture: {url (a data URI), name}. A turn: {text, pictures, answer}.

function user({ text, pictures }) {
  if (!pictures.length) return { role: "user", content: text };
  const shown = pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return { role: "user", content: text ? [...shown, { type: "text", text }] : shown };
}

function messages(turns, turn) {
  const before = turns.flatMap((one) => [user(one), { role: "assistant", content: one.answer }]);
  return [...before, user(turn)];
}

// How many pictures a question would send along with the conversation so far.
export const countPictures = (turns, pictures) =>
  turns.reduce((sum, turn) => sum + turn.pictures.length, pictures.length);

// What the user said, as a list item.
export function said(text, pictures, doing) {
  const shown = pictures.map(({ url, name }) => make("img", { src: url, alt: name }));
  const who = make("span", { className: "unseen" }, `You, to ${doing}: `);
  const bubble = make("div", { className: "bubble" }, who, ...shown, make("p", {}, text));
  return make("li", { className: "user" }, bubble);
}

// Asks `turn` after `turns` and writes the answer into the list item `place` as it comes. An answer
// with words makes the turn one of the conversation.
export async function answer(turns, turn, settings, place, { model, signal, again }) {
  const words = make("p", { className: "words waiting" });
  following(() => place.append(make("span", { className: "unseen" }, "Janus: "), words));
  const note = (text) => following(() => place.append(make("p", { className: "note" }, text)));
  const body = { model: model.id, messages: messages(turns, turn), ...settings };
  let text = "";
  let reason = null;
  try {
    for await (const event of stream("v1/chat/completions", body, signal)) {
      const choice = event.choices[0];
      reason = choice?.finish_reason ?? reason;
      const more = choice?.delta?.content;
      if (!more) continue;
      text += more;
      following(() => { words.textContent = text; words.classList.remove("waiting"); });
    }
    if (!text) note("The answer is empty.");
    if (reason === "length") note("Cut off: as many tokens as were allowed.");
    say(`Answer: ${text || "empty"}`);
    if (text) turns.push({ ...turn, answer: text });
  } catch (error) {
    const stopped = error.name === "AbortError";
    if (stopped) {
      note("Stopped.");
      if (text) turns.push({ ...turn, answer: text });
    } else following(() => place.append(trouble(error, () => again(turn))));
    say(stopped ? "Stopped." : error.message);
    if (!stopped) throw error;
  } finally {
    words.classList.remove("waiting");
    if (!text) words.remove();
  }
}
