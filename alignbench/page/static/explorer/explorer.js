// The results: whatever the address says is asked of the server and drawn. One round at a time: a later one ends an earlier.

import { get } from "/static/api.js";
import { el, notice } from "/static/dom.js";
import { controls } from "./controls.js";
import { onScheme, plotName, plotsView } from "./plots.js";
import * as responses from "./responses.js";
import * as runs from "./runs.js";
import { onChange, params, selection, set, value } from "./state.js";
import { differencesView, tableView } from "./table.js";

const VIEWS = ["table", "differences", "plots", "responses", "runs"];
const LOOK = 4000; // ms between questions whether anything changed
const LIVE = 2000; // and while a run that is shown goes on

const place = (name) => document.getElementById(name);
const answers = new Map(); // address -> its answer, of one version of the folder
const failures = new Map(); // run -> how it stood when it was last seen
let version = null;
let round = 0;

const view = () => (VIEWS.includes(value("view")) ? value("view") : "table");

async function ask(name, query) {
  const address = `/results/${name}?${query}`;
  if (!answers.has(address)) {
    if (answers.size > 60) answers.clear();
    answers.set(address, get(address));
  }
  try {
    return await answers.get(address);
  } catch (error) {
    answers.delete(address);
    throw error;
  }
}

/** Children in place of those that are there; the focus stays on what has the same id. */
function fill(where, children) {
  const focused = document.activeElement;
  const [id, from, to] = [focused?.id, ...span(focused)];
  const scrolled = [...where.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  where.replaceChildren(...children.flat().filter((child) => child != null));
  [...where.querySelectorAll(".scroll")].forEach((one, i) => (one.scrollLeft = scrolled[i] || 0));
  const again = id && !document.activeElement?.id && document.getElementById(id);
  if (!again || again.disabled) return;
  again.focus({ preventScroll: true });
  if (from != null) again.setSelectionRange(from, to);
}

function span(node) {
  return node?.tagName === "INPUT" && ["text", "search"].includes(node.type) ? [node.selectionStart, node.selectionEnd] : [null, null];
}

async function show() {
  const mine = ++round;
  const current = () => mine === round;
  for (const link of place("views").querySelectorAll("a")) {
    const to = params();
    to.set("view", link.dataset.view);
    link.href = `?${to}`;
    if (link.dataset.view === view()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const main = place("view");
  main.setAttribute("aria-busy", "true");
  try {
    const table = await ask("table", selection({ sort: value("sort"), page: value("page") }));
    if (!current()) return;
    about(table);
    fill(place("controls"), ["responses", "runs"].includes(view()) ? [] : controls(table));
    await shown[view()](table, (children) => current() && fill(main, children), current);
  } catch (error) {
    if (current()) fill(main, [el("div", { class: "warning", role: "alert" }, el("p", {}, words(error)), el("p", {}, el("a", { href: "/" }, "Show all results")))]);
  }
  if (current()) main.removeAttribute("aria-busy");
}

const shown = {
  async table(table, draw) {
    draw(tableView(table, null));
    draw(tableView(table, await ask("differences", selection())));
  },
  async differences(table, draw) {
    draw(differencesView(table, null));
    draw(differencesView(table, await ask("differences", selection())));
  },
  async plots(table, draw) {
    const question = ["plot", selection({ plot: plotName() })];
    if (!answers.has(`/results/${question.join("?")}`)) draw(plotsView(null));
    draw(plotsView(await ask(...question)));
  },
  async responses(table, draw) {
    const chosen = responses.chosenRuns(table);
    const asked = new URLSearchParams([...chosen.map((id) => ["run", id]), ["q", value("q")], ["page", value("at")]]);
    draw(responses.responsesView(table, chosen.length ? await ask("responses", asked) : null));
  },
  async runs(table, draw, current) {
    const found = await ask("runs", new URLSearchParams({ q: value("name"), status: value("status"), page: value("list") }));
    const [training, settings] = await runsNow();
    draw(runs.runsView(found, training, settings));
    if (training?.runs?.some((run) => run.status === "running")) again(table, draw, current);
  },
};

async function runsNow() {
  const chosen = runs.chosenRuns();
  if (!chosen.length) return [null, null];
  const asked = new URLSearchParams(chosen.map((id) => ["run", id]));
  const settings = ask("settings", asked).catch((error) => ({ problem: words(error) }));
  if (value("stage")) asked.set("stage", value("stage"));
  // Not one of the kept answers: a training goes on.
  const training = await get(`/results/training?${asked}`).catch((error) => ({ problem: words(error) }));
  for (const run of training.runs || []) {
    if (failures.get(run.id) === "running" && run.status !== "running") notice(`${run.id} ${run.words}`, 15);
    failures.set(run.id, run.status);
  }
  return [training, await settings];
}

function again(table, draw, current) {
  setTimeout(() => {
    if (!current()) return;
    if (document.hidden) again(table, draw, current);
    else shown.runs(table, draw, current).catch((error) => notice(words(error)));
  }, LIVE);
}

function about(table) {
  version = table.version;
  place("about").textContent = `${table.runs.toLocaleString("en")} runs in ${table.folder}`;
  place("problem").replaceChildren(...(table.problem ? [el("p", { class: "warning" }, table.problem)] : []));
}

const words = (error) => (error instanceof TypeError ? "The server cannot be reached: is `alignbench page` still running?" : error.message);

/** Results that came since. */
async function look() {
  if (document.hidden) return;
  try {
    const state = await get("/results/state");
    if (place("problem").dataset.lost) {
      delete place("problem").dataset.lost;
      place("problem").replaceChildren();
    }
    if (version != null && state.version !== version) {
      answers.clear();
      await show();
      notice(state.problem || "The results changed and were read anew.");
    }
  } catch (error) {
    if (version == null) return; // nothing has been shown: the view says why
    place("problem").dataset.lost = "yes";
    place("problem").replaceChildren(el("p", { class: "warning" }, words(error)));
  }
}

place("views").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  set("view", link.dataset.view);
});
onChange(show);
onScheme(show);
await show();
setInterval(look, LOOK);
