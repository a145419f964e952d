// A prompt with the responses of several runs beside one another.
import { el } from "../dom.js";
import { said } from "./parts.js";

/** `names`: run -> what it is called. `needle`: what was searched for, in small letters. */
export function card(prompt, columns, names, needle) {
  return el("article", { class: "card prompt" },
    el("div", { class: "messages" }, prompt.messages.map(([role, text]) => el("p", {}, el("span", { class: "quiet role" }, role), " ", marked(text, needle))), prompt.opinion ? el("p", { class: "quiet" }, `states a ${prompt.opinion} opinion`) : null),
    el("div", { class: "columns" }, columns.map((c, i) =>
      el("div", {}, el("p", { class: "who" }, said(names.get(c.id) || c.id)),
        prompt.responses[i].length ? prompt.responses[i].map((r) => el("div", { class: "response" }, marked(r.text, needle), el("div", { class: "quiet note" }, r.note))) : el("p", { class: "quiet" }, "was not asked this")))));
}

/** The text, what was searched for marked in it. */
function marked(text, needle) {
  if (!needle) return said(text, "text");
  const parts = [];
  const small = text.toLowerCase();
  let from = 0;
  for (let at = small.indexOf(needle); at >= 0 && small.length === text.length; at = small.indexOf(needle, from)) {
    parts.push(text.slice(from, at), el("mark", {}, text.slice(at, at + needle.length)));
    from = at + needle.length;
  }
  return el("bdi", { class: "text" }, ...parts, text.slice(from));
}
