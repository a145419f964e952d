// Every run, what became of it, how the training of some goes, and what differs between their configurations.

import { el } from "/static/dom.js";
import { drawn } from "./plots.js";
import { change, set, toggle, value, values } from "./state.js";
import { list, pager, said, scroll, select } from "./parts.js";

export const MOST = 8;
export const chosenRuns = () => values("run").slice(0, MOST);

export function runsView(runs, training, settings) {
  return [
    el("h2", {}, "Runs"),
    el("div", { class: "fields" },
      select("status", "status", [["", "all"], ...Object.entries(runs.counts).map(([name, count]) => [name, `${name} (${count})`])], value("status"), (one) => change((next) => {
        next.delete("list");
        if (one) next.set("status", one);
        else next.delete("status");
      })),
      find()),
    scroll("Runs", el("table", { class: "runs" },
      el("thead", {}, el("tr", {}, ["run", "algorithm", "seed", "status"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, runs.runs.map(line)))),
    pager("runs", runs, "runs", (page) => set("list", String(page))),
    runs.broken.length ? el("div", { class: "warning" }, el("p", {}, "Cannot be read:"), list(runs.broken)) : null,
    ...(chosenRuns().length ? [...live(training), ...configurations(settings)] : [el("p", { class: "card" }, "Tick runs to see how their training goes, and what differs between their settings.")]),
  ];
}

function find() {
  let timer;
  const type = (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => change((next) => {
      next.delete("list");
      if (event.target.value) next.set("name", event.target.value);
      else next.delete("name");
    }, { quietly: true }), 200);
  };
  return el("label", { class: "field" }, el("span", {}, "name or error"), el("input", { id: "find-run", type: "search", value: value("name"), oninput: type }));
}

function line(run) {
  const chosen = chosenRuns();
  const ticked = chosen.includes(run.id);
  return el("tr", {},
    el("th", { scope: "row" }, el("label", { class: "label" }, el("input", { id: `run-${run.id}`, type: "checkbox", checked: ticked, disabled: !ticked && chosen.length >= MOST, "aria-label": `choose run ${run.id}`, onchange: () => toggle("run", run.id, { quietly: true }) }), said(run.id))),
    el("td", {}, said(run.algo)), el("td", {}, String(run.seed)),
    el("td", {}, el("span", { class: `status ${run.status}` }, run.status), run.error ? [": ", said(run.error)] : null));
}

/** How training goes: asked for anew while one of the runs is running. */
export function live(training) {
  if (!training) return [el("h2", {}, "Training"), el("p", { class: "quiet" }, "Reading…")];
  if (training.problem) return [el("h2", {}, "Training"), el("p", { class: "warning" }, training.problem)];
  const stages = training.stages.length > 1 ? select("stage", "stage", [["", "the algorithm's own"], ...training.stages.map((name) => [name, name])], training.stage, (one) => set("stage", one)) : null;
  return [
    el("div", { class: "fields" }, stages),
    el("ul", { class: "standing", "aria-live": "polite" }, training.runs.map((run) => el("li", {}, said(run.id), run.label ? [" (", said(run.label), ")"] : null, ": ", el("span", { class: `status ${run.status}` }, said(run.words))))),
    ...drawn(training.plot),
  ];
}

function configurations(settings) {
  if (!settings) return [el("h2", {}, "What differs between them"), el("p", { class: "quiet" }, "Reading…")];
  if (settings.problem) return [];
  const several = settings.runs.length > 1;
  const table = (title, lines) => scroll(title, el("table", { class: "settings" },
    several ? el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "setting"), settings.runs.map((id) => el("th", { scope: "col" }, said(id))))) : null,
    el("tbody", {}, lines.map(([name, found]) => el("tr", {}, el("th", { scope: "row" }, said(name)), [found].flat().map((text) => el("td", {}, text == null ? "–" : said(text))))))));
  return [
    el("h2", {}, several ? "What differs between them" : "Settings"),
    ...settings.groups.flatMap((group) => [
      el("h3", {}, group.title),
      several && !group.differing.length ? el("p", { class: "quiet" }, "The same.") : null,
      group.differing.length ? table(group.title, group.differing) : null,
      group.same.length ? el("details", {}, el("summary", {}, several ? `The same in all (${group.same.length})` : `${group.same.length} values`), table(`${group.title}, the same in all`, group.same.map(([name, text]) => [name, several ? settings.runs.map(() => text) : text]))) : null,
    ]),
  ];
}
