// What chooses rows, metrics, the baseline and what is matched, above every view.

import { el } from "/static/dom.js";
import { change, set, toggle, value, values } from "./state.js";
import { checkbox, field, list, select } from "./parts.js";

let open = false; // whether the metrics are unfolded: not worth a place in the address

export function controls(table) {
  const rows = values("row");
  const chips = [
    ...values("only").map((one) => chip(`only ${one}`, () => toggle("only", one))),
    ...(rows.length ? [chip(rows.length === 1 ? `row ${rows[0]}` : `${rows.length} chosen rows`, () => set("row", []))] : []),
    ...(values("metric").length ? [chip(`${values("metric").length} chosen metrics`, () => set("metric", []))] : []),
    ...(values("primary").length ? [chip("other primary metrics", () => set("primary", []))] : []),
    ...["at_kl", "at_budget"].filter(value).map((name) => chip(name === "at_kl" ? `at a KL of ${value(name)}` : `at ${value(name)} seconds`, () => set(name, ""))),
  ];
  const facets = Object.entries(table.facets).map(([name, choices]) =>
    select(`only-${name}`, name, [["", "all"], ...choices.map((one) => [one, one])], valueOf(name), (one) => choose(name, one)));
  return [
    el("div", { class: "fields" },
      ...facets,
      select("baseline", "compared with", [["", "its SFT model"], ...table.every_row.map((one) => [one, one])], value("baseline"), (one) => set("baseline", one)),
      field("at-kl", "at a KL of", { type: "number", min: 0, step: "any", value: value("at_kl"), placeholder: "as run", class: "short" }, (one) => change((next) => put(next, "at_kl", one, "at_budget"))),
      field("at-budget", "at seconds", { type: "number", min: 0, step: "any", value: value("at_budget"), placeholder: "as run", class: "short" }, (one) => change((next) => put(next, "at_budget", one, "at_kl"))),
      metrics(table)),
    chips.length ? el("p", { class: "chips" }, ...chips, el("button", { id: "all", type: "button", onclick: clear }, "Show all")) : null,
    clashes(table),
  ];
}

const chip = (text, drop) => el("button", { class: "chip", type: "button", "aria-label": `no longer ${text}`, onclick: drop }, el("bdi", {}, text), " ×");
const valueOf = (name) => (values("only").find((one) => one.startsWith(`${name}=`)) || "").slice(name.length + 1);

function choose(name, one) {
  set("only", [...values("only").filter((other) => !other.startsWith(`${name}=`)), ...(one ? [`${name}=${one}`] : [])]);
}

function put(next, name, one, other) {
  next.delete(name);
  next.delete(other);
  next.delete("page");
  if (one) next.set(name, one);
}

function clear() {
  change((next) => ["only", "row", "metric", "primary", "at_kl", "at_budget", "page"].forEach((name) => next.delete(name)));
}

function metrics(table) {
  const chosen = values("metric");
  const families = [...new Set(table.every_metric.map((metric) => metric.family))];
  const flip = (name) => {
    const now = chosen.length ? chosen : table.every_metric.map((metric) => metric.name);
    const next = now.includes(name) ? now.filter((other) => other !== name) : [...now, name];
    set("metric", next.length === table.every_metric.length ? [] : next);
  };
  const whole = (family) => set("metric", table.every_metric.filter((metric) => metric.family === family).map((metric) => metric.name));
  return el("details", { class: "metrics", open, ontoggle: (e) => (open = e.target.open) },
    el("summary", { id: "metrics" }, `Metrics (${table.metrics.length} of ${table.every_metric.length})`),
    el("div", { class: "card" }, families.map((family) =>
      el("fieldset", {},
        el("legend", {}, el("button", { id: `family-${family}`, type: "button", title: `only ${family}`, onclick: () => whole(family) }, `only ${family}`)),
        table.every_metric.filter((metric) => metric.family === family).map((metric) =>
          el("span", { class: "metric" }, checkbox(`metric-${metric.name}`, `${metric.label} ${metric.arrow}`, !chosen.length || chosen.includes(metric.name), () => flip(metric.name)), tested(metric.name, table))))),
      el("p", { class: "quiet" }, "★ primary: tested, and corrected for one another. All others are exploratory. Choose them before you look.")));
}

/** A star that puts a metric among those that are tested, or takes it out. */
function tested(name, table) {
  const is = table.primary.includes(name);
  const next = is ? table.primary.filter((other) => other !== name) : [...table.primary, name];
  return el("button", { id: `primary-${name}`, class: "star", type: "button", "aria-pressed": String(is), "aria-label": `test ${name}`, disabled: is && !next.length, onclick: () => set("primary", next) }, is ? "★" : "☆");
}

function clashes(table) {
  if (!table.clashes.length) return null;
  const forced = value("force") === "1";
  return el("div", { class: "warning" },
    el("p", {}, forced ? "Compared all the same, although these rows do not belong in one table:" : "These rows do not belong in one table:"),
    list(table.clashes.slice(0, 4)),
    el("p", {}, "Choose rows above, or ", el("button", { id: "force", type: "button", onclick: () => set("force", forced ? "" : "1") }, forced ? "do not compare them" : "compare all the same")));
}
