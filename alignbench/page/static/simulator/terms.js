// The sliders of what an annotator pays for: one between two terms that are weighed against each other, one for each other term.
import { el } from "../dom.js";

const STEPS = 100;

/** Of an annotator's terms: `{from, to}` are places of two whose sum stays, `{to}` of one alone. Those of two come first. */
export function sliders(terms) {
  const placed = terms.map((term, to) => ({ to, from: term.against ? terms.findIndex((t) => t.setting === term.against) : -1 }));
  const weighed = placed.filter(({ from }) => from >= 0);
  const taken = new Set(weighed.map(({ from }) => from));
  return [...weighed, ...placed.filter(({ to, from }) => from < 0 && !taken.has(to)).map(({ to }) => ({ to }))];
}

/** How much of the two weights' sum is on the second. */
export function share({ from, to }, weights) {
  const sum = weights[from] + weights[to];
  return sum > 0 ? weights[to] / sum : 0;
}

/** `weights` with the share moved; what both have together is what they have as the annotator was made. */
export function moveShare({ from, to }, weights, terms, moved) {
  const sum = terms[from].weight + terms[to].weight || terms[to].high;
  const weight = Math.round(100 * sum * moved) / 100;
  Object.assign(weights, { [from]: sum - weight, [to]: weight });
}

/** A row for each slider; `take(slider, value)` when it is moved. */
export function rows(terms, take) {
  return sliders(terms).map((slider) => {
    const { from, to } = slider;
    const id = `term-${to}`;
    const range = from == null ? { min: terms[to].low, max: terms[to].high, step: 0.1 } : { min: 0, max: STEPS, step: 1 };
    const input = el("input", { type: "range", id, ...range });
    take(input, (weights) => (from == null ? (weights[to] = Number(input.value)) : moveShare(slider, weights, terms, input.value / STEPS)));
    const name = from == null ? terms[to].label : `from ${terms[from].label} to ${terms[to].label}`;
    return el("div", { class: from == null ? "row" : "row weighed" }, el("label", { for: id }, name), el("output", { id: `weight-${to}`, for: id }), input);
  });
}

/** Puts the sliders where the weights are. */
export function show(terms, weights, enabled) {
  for (const slider of sliders(terms)) {
    const { from, to } = slider;
    const input = document.getElementById(`term-${to}`);
    const part = from == null ? null : Math.round(STEPS * share(slider, weights));
    input.value = part ?? weights[to];
    input.disabled = !enabled;
    document.getElementById(`weight-${to}`).textContent = part == null ? weights[to].toFixed(1).replace("-", "−") : `${STEPS - part} : ${part}`;
    if (part != null) input.setAttribute("aria-valuetext", `${STEPS - part} percent ${terms[from].label}, ${part} percent ${terms[to].label}`);
  }
}
