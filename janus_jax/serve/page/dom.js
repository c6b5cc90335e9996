// Elements by name, new elements, and words for screen readers.

export const find = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export const button = (text, onclick) =>
  make("button", { type: "button", className: "quiet small", textContent: text, onclick });

// Read aloud when the reader is free.
export const say = (text) => { find("said").textContent = text; };

// A line beside the message whose request failed, with a way to try once more.
export function trouble(error, again) {
  const line = make("p", { className: "error", role: "alert" }, `${error.message} `);
  line.append(button("Try again", again));
  return line;
}

// Runs `change`; a reader at the end of the conversation stays at its end.
export function following(change) {
  const view = find("scroll");
  const near = view.scrollHeight - view.scrollTop - view.clientHeight < 120;
  change();
  if (near) view.scrollTop = view.scrollHeight;
}
