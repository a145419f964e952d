// A tree that the server made of markdown becomes elements: tags of this list, no attribute, and text.
import { el } from "./dom.js";

const TAGS = new Set("p strong em s code pre ul ol li blockquote table thead tbody tr th td hr br span".split(" "));

export function nodes(tree) {
  return tree.map((node) => {
    if (typeof node === "string") return document.createTextNode(node);
    const children = nodes(node.children);
    if (node.tag === "heading") return el("p", { class: "heading" }, ...children);
    if (node.tag === "plain") return el("p", { class: "plain" }, ...children);
    return el(TAGS.has(node.tag) ? node.tag : "span", node.tag === "pre" ? { tabindex: "0" } : {}, ...children);
  });
}

/** A box of its own direction: text that runs from right to left, or says so, turns nothing outside. */
export function box(tree, className) {
  return el("div", { class: className, dir: "auto" }, ...nodes(tree));
}
