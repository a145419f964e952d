// Elements without markup: whatever models, data and people wrote becomes text and nothing else.

/** `el("button", {class: "primary", onclick: f}, "Save")`: attributes by name, handlers by on<event>, children as nodes or text. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

export function byId(name) {
  return document.getElementById(name);
}

/** Says something to everybody, screen readers included, and takes it back after a while. */
export function notice(words, seconds = 6) {
  const place = document.getElementById("notice");
  place.textContent = words;
  clearTimeout(notice.timer);
  if (seconds) notice.timer = setTimeout(() => (place.textContent = ""), seconds * 1000);
}
