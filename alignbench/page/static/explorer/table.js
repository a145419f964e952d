// The table and what differs in it.

import { el } from "/static/dom.js";
import { change, set, toggle, value, values } from "./state.js";
import { checkbox, list, pager, said, scroll } from "./parts.js";

const MARKS = { "▲": "better", "△": "better", "▼": "worse", "▽": "worse", "◆": "other", "◇": "other" };

/** `differences`: null while they are computed. */
export function tableView(table, differences) {
  if (!table.runs) return [el("p", { class: "card" }, `No runs in ${table.folder} yet. Start one: `, el("code", {}, "python -m alignbench"))];
  if (!table.count) return [el("p", { class: "card" }, "No finished run here is such a row."), notes(table)];
  const found = new Map((differences?.differences || []).map((d) => [`${d.row}\n${d.metric}`, d]));
  const costs = Object.keys(table.rows[0]?.costs || {}).filter((name) => name !== "seconds");
  return [
    actions(table),
    differences?.verdict.length ? el("ul", { class: "card verdict" }, differences.verdict.map((line) => el("li", {}, line))) : null,
    scroll("Results table", el("table", { class: "results" },
      el("thead", {}, families(table, costs), el("tr", {}, el("th", { scope: "col" }, column("", "row")),
        table.metrics.map((metric) => heading(metric.name, `${metric.label}\u00a0${metric.arrow}`, metric.unit)),
        heading("seconds", "seconds", "of the whole run"),
        costs.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, table.rows.map((row) => line(row, table, found, costs))))),
    pager("rows", table, "rows", (page) => set("page", String(page))),
    differences ? null : el("p", { class: "quiet" }, "Computing what differs beyond noise…"),
    differences?.refused ? el("p", { class: "warning" }, differences.refused) : null,
    el("p", { class: "quiet caption" }, (differences?.caption.length ? differences.caption : table.caption).join(" ")),
    notes(table),
  ];
}

function families(table, costs) {
  const spans = [];
  for (const metric of table.metrics) {
    if (spans.at(-1)?.[0] === metric.family) spans.at(-1)[1]++;
    else spans.push([metric.family, 1]);
  }
  return el("tr", { class: "families" }, el("td", {}), spans.map(([family, colspan]) => el("th", { colspan, scope: "colgroup" }, family)), el("th", { colspan: 1 + costs.length, scope: "colgroup" }, "cost"));
}

function heading(name, text, unit) {
  const sort = value("sort");
  const direction = sort === name ? "ascending" : sort === `-${name}` ? "descending" : null;
  return el("th", { scope: "col", "aria-sort": direction }, column(name, text, unit, direction));
}

function column(name, text, unit = "", direction = null) {
  const next = !name ? "" : direction === "descending" ? name : `-${name}`;
  const press = () => change((state) => {
    state.delete("page");
    if (next) state.set("sort", next);
    else state.delete("sort");
  });
  const sign = direction ? (direction === "ascending" ? " ⌃" : " ⌄") : "";
  return el("button", { id: `sort-${name}`, class: "sort", type: "button", title: unit || null, onclick: press }, `${text}${sign}`);
}

function line(row, table, found, costs) {
  const picked = values("pick").includes(row.name);
  const label = el("label", { class: "label" },
    el("input", { id: `pick-${row.name}`, type: "checkbox", checked: picked, "aria-label": `choose ${row.name}`, onchange: () => toggle("pick", row.name, { quietly: true }) }),
    el("span", {}, row.label.map((part, i) => said(part, i ? "setting" : "algorithm"))));
  return el("tr", { class: row.baseline ? "baseline" : null },
    el("th", { scope: "row" }, label),
    table.metrics.map(({ name }) => cell(row.cells[name], found.get(`${row.name}\n${name}`))),
    el("td", {}, row.costs.seconds),
    costs.map((name) => el("td", {}, row.costs[name])));
}

function cell([text], difference) {
  const mark = difference?.mark || "";
  const title = difference ? `${difference.value} ${difference.interval} from ${difference.baseline}; ${difference.primary ? `p (Holm) ${difference.p_holm}` : "exploratory, not tested"}` : null;
  return el("td", { title }, text, mark ? el("span", { class: MARKS[mark], role: "img", "aria-label": MARKS[mark] }, ` ${mark}`) : null);
}

/** What to do with the rows that are ticked. */
function actions(table) {
  const picked = values("pick");
  const runs = (most) => table.rows.filter((row) => picked.includes(row.name) && row.runs.length).slice(0, most).map((row) => row.runs[0].id);
  const go = (view, most) => () => change((next) => {
    next.set("view", view);
    next.delete("run");
    runs(most).forEach((id) => next.append("run", id));
  });
  const only = () => change((next) => {
    next.delete("row");
    next.delete("page");
    picked.forEach((name) => next.append("row", name));
    next.delete("pick");
  });
  const off = !picked.length;
  return el("p", { class: "actions" },
    el("span", { class: "quiet" }, off ? "Tick rows to " : `${picked.length} ticked: `),
    el("button", { id: "act-only", type: "button", disabled: off, onclick: only }, "show only these"),
    el("button", { id: "act-responses", type: "button", disabled: off, onclick: go("responses", 4) }, "read their responses"),
    el("button", { id: "act-runs", type: "button", disabled: off, onclick: go("runs", 8) }, "see their training and settings"),
    off ? null : el("button", { id: "act-none", type: "button", onclick: () => set("pick", []) }, "untick"));
}

function notes(table) {
  if (!table.notes.length) return null;
  const more = table.more_notes ? [`and ${table.more_notes} more: \`alignbench compare\` lists all`] : [];
  return el("details", { class: "notes", open: table.notes.length < 6 }, el("summary", {}, `What is not in the table, or not the same in all runs (${table.notes.length + table.more_notes})`), list([...table.notes, ...more]));
}

export function differencesView(table, differences) {
  if (!differences) return [el("p", { class: "quiet" }, "Computing what differs beyond noise…")];
  if (differences.refused) return [el("p", { class: "warning" }, differences.refused)];
  if (!differences.differences.length) return [el("p", { class: "card" }, "There is none: it takes two rows with scores of the same evaluation examples.")];
  const only = value("significant") === "1";
  const shown = differences.differences.filter((d) => !only || d.significant);
  const head = ["metric", "row", "baseline", "difference", "95% interval", "p", "p (Holm)", "effect size d", "tested", "interval over", "seeds", "examples"];
  return [
    el("p", {}, checkbox("significant", `only those below 5% after Holm's correction (${differences.differences.filter((d) => d.significant).length} of the ${differences.differences.filter((d) => d.primary).length} that are tested)`, only, () => set("significant", only ? "" : "1"))),
    scroll("Differences", el("table", { class: "results" },
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, shown.map((d) => el("tr", { class: d.significant ? "significant" : null },
        el("th", { scope: "row" }, d.metric, d.mark ? el("span", { class: MARKS[d.mark], role: "img", "aria-label": MARKS[d.mark] }, ` ${d.mark}`) : null),
        el("td", { class: "text" }, said(d.row)), el("td", { class: "text" }, said(d.baseline)),
        [d.value, d.interval, d.p_value, d.p_holm, d.effect_size, d.primary ? "yes" : "exploratory", d.over, d.seeds, d.examples].map((text) => el("td", {}, String(text)))))))),
    el("p", { class: "quiet caption" }, differences.caption.join(" ")),
  ];
}
