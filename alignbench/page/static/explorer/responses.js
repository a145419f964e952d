// Responses of up to four runs to the same prompts.

import { el } from "/static/dom.js";
import { card } from "./beside.js";
import { change, set, value, values } from "./state.js";
import { pager, said, select } from "./parts.js";

export const MOST = 4;

/** The runs to read: those that were chosen, else the first of an SFT model and of two rows. */
export function chosenRuns(table) {
  const chosen = values("run").slice(0, MOST);
  if (chosen.length) return chosen;
  const rows = [...table.rows.filter((row) => row.baseline).slice(0, 1), ...table.rows.filter((row) => !row.baseline).slice(0, 2)];
  return rows.filter((row) => row.runs.length).map((row) => row.runs[0].id);
}

export function responsesView(table, found) {
  const runs = chosenRuns(table);
  const names = new Map(table.rows.flatMap((row) => row.runs.map((run) => [run.id, `${row.name}, seed ${run.seed}`])));
  const head = [
    el("div", { class: "fields" },
      runs.map((id, i) => column(i, id, runs, names)),
      runs.length < MOST && names.size > runs.length ? el("button", { id: "add-run", type: "button", onclick: () => set("run", [...runs, [...names.keys()].find((id) => !runs.includes(id))]) }, "one more") : null,
      search()),
  ];
  if (!runs.length) return [el("p", { class: "card" }, "No finished run has responses yet.")];
  if (!found) return [...head, el("p", { class: "quiet" }, "Reading…")];
  const needle = value("q").trim().toLowerCase();
  const what = needle ? `of ${found.asked} prompts` : "prompts";
  const go = (page) => set("at", String(page));
  return [
    ...head,
    pager("prompts-top", found, what, go),
    ...found.columns.filter((c) => c.missing).map((c) => el("p", { class: "warning" }, said(`${names.get(c.id) || c.id} has no generations.jsonl.`))),
    ...found.prompts.map((prompt) => card(prompt, found.columns, names, needle)),
    found.prompts.length > 2 ? pager("prompts", found, what, go) : null,
  ];
}

function search() {
  let timer;
  const type = (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => change((next) => {
      next.delete("at");
      if (event.target.value) next.set("q", event.target.value);
      else next.delete("q");
    }, { quietly: true }), 200);
  };
  return el("label", { class: "field" }, el("span", {}, "search"), el("input", { id: "search", type: "search", value: value("q"), placeholder: "in prompts and responses", oninput: type }));
}

function column(i, id, runs, names) {
  const choices = [["", "none"], ...(names.has(id) ? [] : [[id, id]]), ...names];
  return select(`column-${i}`, `column ${i + 1}`, choices, id, (one) => set("run", runs.map((other, j) => (j === i ? one : other)).filter(Boolean)));
}
