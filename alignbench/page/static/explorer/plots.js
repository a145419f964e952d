// The report's plots, one at a time: which rows and which part of a panel are shown stands in the address.

import { el } from "/static/dom.js";
import { chart, marker, onScheme } from "./chart.js";
import { change, set, toggle, value, values } from "./state.js";
import { list, said } from "./parts.js";

const titles = new Map(JSON.parse(document.getElementById("plots").textContent));
export const plotName = () => (titles.has(value("plot")) ? value("plot") : "frontier");

export function plotsView(found) {
  const name = plotName();
  const menu = el("div", { class: "plots", role: "group", "aria-label": "Plots" }, [...titles].map(([one, title]) =>
    el("button", { id: `plot-${one}`, type: "button", "aria-pressed": String(one === name), onclick: () => set("plot", one) }, title)));
  if (!found) return [menu, el("p", { class: "quiet" }, "Drawing…")];
  if (found.refused) return [menu, el("p", { class: "warning" }, found.refused)];
  return [menu, ...found.plots.flatMap((plot) => drawn(plot))];
}

/** One plot with its legend, whose buttons take rows away and bring them back. */
export function drawn(plot) {
  if (!plot.panels.length) return [el("h2", {}, said(plot.title)), el("p", { class: "card" }, said(plot.text))];
  const hidden = new Set(values("hide"));
  const small = plot.panels.length > 3 && !plot.panels[0].ticks.length; // names of rows take their place
  return [
    el("h2", {}, said(plot.title)),
    el("div", { class: "drawn" }, legend(plot, hidden), el("div", { class: `panels${small ? " small" : ""}` }, plot.panels.map((panel, i) => {
      const key = `${plot.name}.${i}`;
      return chart(panel, { hidden, zoom: zoomOf(key, panel), onzoom: (to) => zoomTo(key, to), id: `chart-${key}`, width: small ? 400 : 520 });
    }))),
    el("p", { class: "quiet caption" }, said(plot.text), " Drag over a part to enlarge it; double-click shows all."),
    list(plot.notes, "quiet caption"),
  ];
}

function legend(plot, hidden) {
  const rows = new Map();
  for (const panel of plot.panels) {
    for (const series of [...panel.points, ...panel.lines.filter((line) => line.marker), ...panel.lines]) if (series.row && !rows.has(series.row)) rows.set(series.row, series);
  }
  return el("div", { class: "legend", role: "group", "aria-label": "Rows in the plot" }, [...rows].map(([row, series], i) =>
    el("button", { id: `legend-${plot.name}-${i}`, type: "button", "aria-pressed": String(!hidden.has(row)), onclick: () => toggle("hide", row, { quietly: true }) }, key(series), said(row))));
}

function key(series) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  node.setAttribute("viewBox", "-9 -7 18 14");
  node.setAttribute("aria-hidden", "true");
  node.append(marker(series.marker || "s", series.colour));
  return node;
}

function zoomOf(key, panel) {
  const text = values("zoom").find((one) => one.startsWith(`${key}:`));
  const numbers = text?.slice(key.length + 1).split(",").map(Number);
  const sound = numbers?.length === 4 && numbers.every(Number.isFinite) && numbers[0] < numbers[1] && numbers[2] < numbers[3];
  return sound ? numbers : null;
}

function zoomTo(key, to) {
  change((next) => {
    const others = next.getAll("zoom").filter((one) => !one.startsWith(`${key}:`));
    next.delete("zoom");
    others.forEach((one) => next.append("zoom", one));
    if (to) next.append("zoom", `${key}:${to.map((number) => Number(number.toPrecision(5))).join(",")}`);
  }, { quietly: true });
}

export { onScheme };
