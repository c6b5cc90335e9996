// Drawings: a frame of the final size that fills from the top, and what can be done with the
// picture then.

import { stream } from "./api.js";
import { button, find, following, make, say, trouble } from "./dom.js";

// A drawing: {prompt, seed, guidance, temperature, negative, size, number, count, url}. size: "24x16",
// of a model that draws several. number: which of the `count` pictures of its request, from 0. url: the
// finished file as a data URI.

const png = (event) => `data:image/png;base64,${event.b64_json}`;

export const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

function facts({ seed, guidance, temperature, negative, size }) {
  const said = [`seed\u00a0${seed}`, `guidance\u00a0${guidance}`, `temperature\u00a0${temperature}`];
  if (size) said.push(size);
  if (negative) said.push(`without “${negative}”`);
  return said.join(" · ");
}

const which = ({ number, count }) => count > 1 ? `picture ${number + 1} of ${count}` : "";

function fileName({ prompt, seed, number }) {
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60);
  return `${words.replace(/^-+|-+$/g, "") || "picture"}-seed${seed}-${number}.png`;
}

// Where there is little room, a sign stands for the words.
const labelled = (sign, text) => [
  make("span", { className: "sign", ariaHidden: "true" }, sign), make("span", { className: "text" }, text),
];

// The page listens for "again" and "ask", which bubble from the frame.
function actions(drawing, node) {
  const tell = (name) => () =>
    node.dispatchEvent(new CustomEvent(name, { bubbles: true, detail: drawing }));
  const out = [[button("", tell("again")), "↻", "Another seed"]];
  if (drawing.url) {
    const file = { className: "quiet small", href: drawing.url, download: fileName(drawing) };
    out.push([button("", tell("ask")), "?", "Ask about it"], [make("a", file), "↓", "Download"]);
  }
  const of = [drawing.prompt, which(drawing)].filter(Boolean).join(", ");
  return out.map(([one, sign, text]) => {
    one.append(...labelled(sign, text));
    one.ariaLabel = one.title = `${text}: ${of}`;
    return one;
  });
}

// {node, partial(event), complete(url), end(why)}. text: what stands under the picture.
export function frame(drawing, text) {
  const image = make("img", { alt: drawing.prompt, hidden: true });
  const paper = make("div", { className: "paper" }, image);
  if (drawing.size) paper.style.aspectRatio = drawing.size.replace("x", " / ");
  const fill = make("div", { className: "fill" });
  const bar = make("div", {
    className: "bar waiting", role: "progressbar", ariaValueMin: 0, ariaValueText: "waiting",
    ariaLabel: `Drawing ${drawing.prompt} ${which(drawing)}`.trim(),
  }, fill);
  const count = make("span", { className: "count", ariaHidden: "true" }, "waiting…");
  const foot = make("div", { className: "foot" }, bar, count);
  const caption = make("figcaption", {}, make("p", { className: "facts" }, text), foot);
  const node = make("figure", { className: "frame" }, paper, caption);
  const show = (url) => { image.src = url; image.hidden = false; };
  return {
    node,
    partial(event) {
      show(png(event));
      const so = `${event.done} of ${event.total} tokens`;
      Object.assign(bar, {
        className: "bar", ariaValueMax: event.total, ariaValueNow: event.done, ariaValueText: so,
      });
      fill.style.width = `${(100 * event.done) / event.total}%`;
      count.textContent = so;
    },
    complete(url) {
      drawing.url = url;
      show(url);
      foot.replaceChildren(...actions(drawing, node));
      node.classList.add("done");
    },
    end(why) {
      if (image.hidden) return node.remove();
      foot.replaceChildren(make("span", { className: "count" }, why), ...actions(drawing, node));
      node.classList.add("done");
    },
  };
}

// Draws as `how` says ({prompt, seed, guidance, temperature, negative, count}) into the list item
// `place`; ready(drawing) as each picture is complete.
export async function draw(how, place, { model, signal, ready, again }) {
  const frames = Array.from({ length: how.count }, (_, number) => {
    const drawing = { ...how, number };
    return frame(drawing, which(drawing) || facts(drawing));
  });
  const open = new Set(frames);
  const many = how.count > 1;
  const box = make("div", { className: many ? "frames many" : "frames" });
  box.append(...frames.map((one) => one.node));
  if (many) box.append(make("p", { className: "facts" }, facts(how)));
  following(() => place.append(box));
  const height = how.size ? Number(how.size.split("x")[1]) : model.image_size;
  const rows = height * model.grid[0] / model.image_size;
  const body = {
    model: model.id, prompt: how.prompt, n: how.count, seed: how.seed, response_format: "b64_json",
    guidance_scale: how.guidance, temperature: how.temperature,
    partial_images: Math.min(24, rows - 1), // one a row of tokens, before the whole
  };
  if (how.size) body.size = how.size;
  if (how.negative) body.negative_prompt = how.negative;
  try {
    for await (const event of stream("v1/images/generations", body, signal)) {
      const number = event.image_index ?? 0;
      if (event.type === "image_generation.partial_image") frames[number].partial(event);
      if (event.type !== "image_generation.completed") continue;
      frames[number].complete(png(event));
      open.delete(frames[number]);
      ready({ ...how, number, url: png(event) });
    }
    say(`Drawn: ${how.prompt}`);
  } catch (error) {
    const stopped = error.name === "AbortError";
    for (const one of open) one.end(stopped ? "stopped" : "not finished");
    if (!box.querySelector("figure")) box.replaceChildren();
    if (stopped && !box.firstChild) box.append(make("p", { className: "note" }, "Stopped."));
    if (!stopped) following(() => place.append(trouble(error, () => again(how))));
    say(stopped ? "Stopped." : error.message);
    if (!stopped) throw error;
  }
}

// Puts a finished drawing at the beginning of the history; a click shows it.
export function remember(drawing) {
  const image = make("img", { src: drawing.url, alt: drawing.prompt });
  const title = `${drawing.prompt}, seed ${drawing.seed}`;
  const thumb = make("button", { type: "button", className: "thumb", title }, image);
  thumb.onclick = () => {
    const text = [facts(drawing), which(drawing)].filter(Boolean).join(" · ");
    const shown = frame(drawing, text);
    shown.complete(drawing.url);
    shown.node.prepend(make("p", { className: "prompt" }, drawing.prompt));
    find("shown").replaceChildren(shown.node);
    find("viewer").showModal();
  };
  find("strip").prepend(make("li", {}, thumb));
}
