// The page: what is written, attached and set, and what becomes of it when it is sent.

import { answer, countPictures, said } from "./answer.js";
import { hasKey, keepKey, model as readModel } from "./api.js";
import { find, following, make } from "./dom.js";
import { draw, newSeed, remember } from "./drawing.js";

const SHAPES = ["a triangle above a circle", "a yellow cross", "two circles"]; // of the quick start's world
const GENERAL = [
  "a fox in the snow at dawn", "a lighthouse on a cliff, oil painting", "a bowl of ramen, seen from above",
];
const ONE = "One at a time: wait, or stop what runs with Escape.";

let model = null; // the server's, of /v1/models
let turns = []; // questions answered so far; what a question is sent with
let pictures = []; // attached to the next question
let running = null; // the AbortController of what runs

const words = find("words");
const composer = find("composer");
const mode = () => composer.elements.mode.value;
const isToy = () => model?.image_size === 24;
const group = (name = mode()) => find(`${name}-settings`);
const notice = (text = "") => { find("notice").textContent = text; };

function refresh() {
  const drawing = mode() === "draw";
  const open = find("adjust").ariaExpanded === "true";
  for (const name of ["draw", "ask"]) group(name).hidden = !open || mode() !== name;
  const question = isToy() ? "Ask: what color is the circle?" : "Ask about a picture, or anything";
  words.placeholder = drawing ? "Describe a picture" : question;
  find("send").textContent = running ? "Stop" : drawing ? "Draw" : "Ask";
  find("send").disabled = !running && !model;
  find("log").ariaBusy = String(Boolean(running));
  find("welcome").hidden = find("log").children.length > 0;
  words.style.height = "auto";
  words.style.height = `${Math.min(words.scrollHeight, 200)}px`;
}

function setMode(name) {
  composer.elements.mode.value = name;
  refresh();
}

// What is set, by the names of the API; empty fields are left out. null where a field is wrong.
function settings() {
  const fields = [...group().querySelectorAll("input, select")];
  const wrong = fields.find((field) => !field.validity.valid);
  if (wrong) {
    find("adjust").ariaExpanded = "true";
    refresh();
    wrong.reportValidity();
    return null;
  }
  const given = fields.filter((field) => field.value.trim());
  const value = (field) => field.type === "number" ? field.valueAsNumber : field.value.trim();
  return Object.fromEntries(given.map((field) => [field.name, value(field)]));
}

// One request runs at a time. task(place, tools) works in a new item of the conversation. Whether
// the server took it.
async function run(shown, task) {
  if (running) return notice(ONE);
  notice();
  running = new AbortController();
  const place = make("li", { className: "reply" });
  find("log").append(shown, place);
  refresh();
  shown.scrollIntoView({ block: "start" });
  try {
    await task(place, { model, signal: running.signal });
    return true;
  } catch (error) {
    if (error.status === 401) lock();
    else if (error.status === undefined) throw error;
    return false;
  } finally {
    running = null;
    refresh();
  }
}

function startDrawing(how) {
  find("drawings").hidden = false; // now, not when the first is done: nothing moves then
  return run(said(how.prompt, [], "draw"), (place, tools) =>
    draw(how, place, { ...tools, ready: remember, again: startDrawing }));
}

const startAnswer = (turn) =>
  run(said(turn.text, turn.pictures, "ask"), (place, tools) =>
    answer(turns, turn, turn.settings, place, { ...tools, again: startAnswer }));

// Why what is written cannot be sent, or nothing.
function obstacle(text) {
  if (running) return ONE;
  if (mode() === "draw") return text ? "" : "Describe the picture first.";
  if (!text && !pictures.length) return "Ask something first.";
  const count = countPictures(turns, pictures);
  return count <= model.max_images ? "" :
    `This chat holds ${count} pictures, and the server reads ${model.max_images} at most: ` +
    "begin a new chat, or take some away.";
}

async function send() {
  const text = words.value.trim();
  const given = model && settings();
  if (!given) return;
  const why = obstacle(text);
  if (why) return notice(why);
  const drawing = mode() === "draw";
  const shown = drawing ? [] : pictures;
  const sent = !drawing ? startAnswer({ text, pictures: shown, settings: given }) : startDrawing({
    prompt: text, seed: given.seed ?? newSeed(), count: given.n,
    guidance: given.guidance_scale ?? model.cfg_scale,
    temperature: given.temperature ?? model.temperature, negative: given.negative_prompt,
    size: given.size,
  });
  write("", drawing ? pictures : []);
  if (!await sent && !words.value) write(text, [...pictures, ...shown]); // to be mended
}

function write(text, attached) {
  words.value = text;
  pictures = attached;
  showAttached();
  refresh();
}

function showAttached() {
  find("attached").replaceChildren(...pictures.map((picture) => {
    const remove = make("button", {
      type: "button", className: "remove", textContent: "×", ariaLabel: `Remove ${picture.name}`,
    });
    remove.onclick = () => {
      pictures = pictures.filter((one) => one !== picture);
      showAttached();
      words.focus();
    };
    return make("li", {}, make("img", { src: picture.url, alt: picture.name }), remove);
  }));
}

// A drawing is made of words alone, so a picture makes the message a question.
function attach(...more) {
  pictures.push(...more);
  showAttached();
  setMode("ask");
  words.focus();
}

const read = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve({ url: reader.result, name: file.name || "pasted picture" });
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(file);
});

async function attachFiles(files) {
  const wrong = [...files].filter((file) => !file.type.startsWith("image/"));
  notice(wrong.length ? `No picture: ${wrong.map((file) => file.name).join(", ")}.` : "");
  const fit = [...files].filter((file) => !wrong.includes(file));
  try {
    if (fit.length) attach(...await Promise.all(fit.map(read)));
  } catch (error) {
    notice(`The file cannot be read: ${error.message}`);
  }
}

function lock() {
  find("door").hidden = false;
  find("key").focus();
}

const field = (kind, name) => group(kind).querySelector(`[name=${name}]`);

async function connect() {
  try {
    model = await readModel();
  } catch (error) {
    find("model").textContent = "not connected";
    const locked = error.status === 401;
    notice(!locked ? error.message : hasKey() ? "The server does not know this key." : "");
    if (locked) lock();
    else setTimeout(connect, 3000); // the model may be loading still
    return;
  }
  notice();
  find("door").hidden = true;
  const side = model.image_size;
  find("sizes").hidden = !model.sizes; // of a model that draws one, nothing is chosen
  field("draw", "size").replaceChildren(...(model.sizes ?? []).map((size) => make("option", {}, size)));
  find("model").textContent = `${model.id} · ${side} px`;
  const small = side < 128;
  document.body.classList.toggle("pixels", small);
  const shown = small ? side * Math.max(1, Math.floor(320 / side)) : Math.min(side, 384);
  document.body.style.setProperty("--side", `${shown}px`);
  field("draw", "n").max = Math.min(4, model.max_n);
  field("draw", "guidance_scale").placeholder = model.cfg_scale;
  field("draw", "temperature").placeholder = model.temperature;
  field("ask", "max_tokens").max = model.context;
  find("examples").replaceChildren(...(isToy() ? SHAPES : GENERAL).map((text) => {
    const chip = make("button", { type: "button", className: "chip", textContent: text });
    chip.onclick = () => { setMode("draw"); words.value = text; words.focus(); send(); };
    return make("li", {}, chip);
  }));
  refresh();
}

composer.addEventListener("submit", (event) => event.preventDefault());
composer.addEventListener("keydown", (event) => {
  const field = event.target.matches("textarea, input");
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || !field) return;
  event.preventDefault();
  send();
});
composer.addEventListener("change", refresh);
words.addEventListener("input", refresh);
find("send").onclick = () => running ? running.abort() : send();
find("adjust").onclick = (event) => {
  event.currentTarget.ariaExpanded = String(event.currentTarget.ariaExpanded !== "true");
  refresh();
};
find("attach").onclick = () => find("files").click();
find("files").onchange = async (event) => {
  await attachFiles(event.target.files);
  event.target.value = "";
};
find("fresh").onclick = () => {
  running?.abort();
  turns = [];
  find("log").replaceChildren();
  notice();
  refresh();
  words.focus();
};
find("close").onclick = () => find("viewer").close();
find("door").onsubmit = (event) => {
  event.preventDefault();
  keepKey(find("key").value);
  find("key").value = "";
  connect();
  words.focus();
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !find("viewer").open) running?.abort();
});
document.addEventListener("again", ({ detail }) => {
  find("viewer").close();
  startDrawing({ ...detail, seed: newSeed(), count: 1, url: undefined });
});
document.addEventListener("ask", ({ detail }) => {
  find("viewer").close();
  attach({ url: detail.url, name: detail.prompt });
});
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  attachFiles(event.clipboardData.files);
});
const holdsFiles = (event) => event.dataTransfer.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!holdsFiles(event)) return;
  event.preventDefault();
  attachFiles(event.dataTransfer.files);
});

refresh();
connect();
