// Small parts that several views share.

import { el } from "/static/dom.js";

/** Text of a run, kept apart from the direction of what is around it. */
export const said = (text, name = "") => el("bdi", { class: name }, text);

export function select(id, label, choices, chosen, onchoose) {
  const options = choices.map(([value, text]) => el("option", { value, selected: value === chosen }, text));
  return el("label", { class: "field" }, el("span", {}, label), el("select", { id, onchange: (e) => onchoose(e.target.value) }, options));
}

export function field(id, label, attributes, onchoose) {
  return el("label", { class: "field" }, el("span", {}, label), el("input", { id, onchange: (e) => onchoose(e.target.value), ...attributes }));
}

export function checkbox(id, label, checked, onchoose, attributes = {}) {
  return el("label", { class: "check" }, el("input", { id, type: "checkbox", checked, onchange: onchoose, ...attributes }), label);
}

export function pager(id, { page, pages, count }, what, go) {
  const step = (by, text) => el("button", { id: `${id}-${by}`, type: "button", disabled: page + by < 1 || page + by > pages, onclick: () => go(page + by) }, text);
  return el("div", { class: "pager" }, pages > 1 ? step(-1, "Previous") : null, el("span", {}, pages > 1 ? `page ${page} of ${pages}, ${count} ${what}` : `${count} ${what}`), pages > 1 ? step(1, "Next") : null);
}

/** What is wider than the screen scrolls by itself, by keyboard too. */
export const scroll = (label, ...children) => el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": label }, ...children);

export const list = (lines, name = "") => (lines.length ? el("ul", { class: name }, lines.map((line) => el("li", {}, said(line)))) : null);
