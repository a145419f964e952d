// The simulator's screen: what is wanted on the left, what comes out on the right. `source` brings the data: a server, or the file itself.
import { byId, el, notice } from "../dom.js";
import {
  ENOUGH, NEAR_NONE, NOTHING, asSum, bestOf, expected, mean, measured, median, samples, standardised, tilted,
} from "./mathematics.js";
import { Answers, readAnswers } from "./answers.js";
import { drawPlot } from "./plot.js";
import { GAUGES, METHODS, PRESETS, coefficient, coefficientName, placeOf } from "./settings.js";
import { rows, show } from "./terms.js";
import { betaAt, percent, sentences } from "./why.js";

const BETAS = [Infinity, ...Array.from({ length: 26 }, (_, i) => 8 * 0.76 ** i)];
const NUMBERS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

export class Simulator {
  constructor(data, source) {
    this.data = data;
    this.set = data.pool ? samples(data.pool) : NOTHING;
    this.rewarded = data.pool != null;
    this.wrong = (p) => data.prompts[p].opinion === "wrong";
    this.checkpoints = data.checkpoints.map((found) => readAnswers(found, this.set));
    this.state = {
      reward: data.annotators.length ? "utility" : data.rewards[0]?.name,
      annotator: Math.min(1, data.annotators.length - 1), weights: [], method: "tilt", place: placeOf(0.1), n: 16,
      prompt: Math.max(data.prompts.findIndex((p) => p.opinion === "wrong"), 0), checkpoint: !this.rewarded && this.checkpoints.length ? 0 : null,
    };
    this.answers = new Answers(this, source);
    this.takeAnnotator(this.state.annotator);
    this.build();
    this.refresh();
    this.generate();
  }

  generate() {
    this.answers.generate();
  }

  // --- what is chosen ---

  takeAnnotator(index) {
    this.state.annotator = index;
    this.state.weights = this.data.annotators[index]?.terms.map((term) => term.weight) ?? [];
  }

  take(preset) {
    const { annotators } = this.data;
    if (annotators.length) {
      this.takeAnnotator(Math.min(preset.like, annotators.length - 1));
      annotators[this.state.annotator].terms.forEach((term, k) => {
        if (term.setting in preset.weights) this.state.weights[k] = preset.weights[term.setting];
      });
      this.state.reward = "utility";
    }
    Object.assign(this.state, { method: preset.method, checkpoint: null });
    if (preset.beta != null) this.state.place = preset.beta ? placeOf(preset.beta) : 0;
    if (preset.n) this.state.n = preset.n;
    if (preset.trained) {
      this.state.checkpoint = this.furthest();
      this.state.reward = this.checkpoints[this.state.checkpoint].reward;
    }
    this.settle();
    this.showPreset(preset);
  }

  /** The run with the highest KL among those that were trained with a reward of these, and without rankings; -1: none. */
  furthest() {
    const kls = this.checkpoints.map((c) => (c.reward && !c.annotator ? (c.kl ?? -1) : -1));
    const most = Math.max(-1, ...kls);
    return most < 0 ? -1 : kls.indexOf(most);
  }

  /** Whether there is what a preset is about. */
  offers({ annotator, trained }) {
    return trained ? this.rewarded && this.data.gold != null && this.furthest() >= 0 : this.data.annotators.length > 0 || !annotator;
  }

  /** Which preset stands as it was chosen; none after any other choice. */
  showPreset(chosen = null) {
    byId("look").textContent = chosen?.look ?? "";
    for (const button of byId("presets").children) button.setAttribute("aria-pressed", String(button.textContent === chosen?.name));
  }

  /** After a choice that moves the controls themselves. */
  settle() {
    this.showPreset();
    this.showControls();
    this.refresh();
    this.generate();
  }

  get terms() {
    return this.data.annotators[this.state.annotator]?.terms ?? [];
  }

  feature(k, set = this.set) {
    return set.columns[`feature${k}`];
  }

  utility(columns, length) {
    const total = new Float64Array(length);
    this.state.weights.forEach((weight, k) => {
      const column = columns[`feature${k}`];
      if (weight) for (let i = 0; i < length; i++) total[i] += weight * column[i];
    });
    return total;
  }

  /** The reward of rows of any set, in deviations of the SFT model's. */
  rewardOf(columns, length) {
    const raw = this.state.reward === "utility" ? this.utility(columns, length) : columns[this.state.reward];
    if (!this.rewarded || !raw) return new Float64Array(length).fill(NaN);
    return Float64Array.from(raw, (v) => (v - this.scale.mean) / this.scale.deviation);
  }

  get beta() {
    const chosen = this.data.exact && this.state.place <= 0 ? NEAR_NONE : coefficient(this.state.place);
    if (this.state.method !== "dpo") return chosen;
    const noise = this.data.annotators[this.state.annotator]?.noise ?? 1;
    return (chosen * noise) / this.scale.deviation;
  }

  policy(reward, set) {
    return this.state.method === "best" ? bestOf(reward, this.state.n, set) : tilted(reward, this.beta, set);
  }

  // --- what follows ---

  refresh() {
    if (!this.rewarded) return;
    const { set, state } = this;
    const raw = state.reward === "utility" ? this.utility(set.columns, set.prior.length) : set.columns[state.reward];
    this.scale = standardised(raw, set);
    this.reward = this.scale.values;
    this.found = this.policy(this.reward, set);
    this.before = measured(tilted(this.reward, Infinity, set), this.reward, set, this.wrong);
    this.now = measured(this.found, this.reward, set, this.wrong);
    this.showFormula();
    this.showGauges();
    this.showCurves();
    clearTimeout(this.explaining);
    this.explaining = setTimeout(() => this.explain(), 120);
  }

  parts() {
    if (!this.terms.length) return [];
    const features = this.terms.map((_, k) => this.feature(k));
    const weights = this.state.reward === "utility"
      ? this.state.weights.map((w) => w / this.scale.deviation)
      : asSum(this.reward, features, this.set);
    return this.terms.map((term, k) => ({ label: term.label, weight: weights[k], column: features[k] }));
  }

  explain() {
    const beta = this.state.method === "best" ? betaAt(this.now.kl, this.reward, this.set) : this.beta;
    const why = sentences({
      now: this.now, before: this.before, parts: this.parts(), reward: this.reward, beta, set: this.set, wrong: this.wrong,
      method: this.state.method, likeliest: this.now.likeliest,
    });
    for (const { name } of GAUGES) byId(`why-${name}`).textContent = why[name] ?? "";
  }

  // --- the screen ---

  build() {
    byId("simulator").classList.toggle("unrewarded", !this.rewarded);
    byId("simulator").classList.toggle("exact", this.data.exact);
    byId("samples").textContent = this.data.samples;
    if (this.data.pretrained && byId("own-label")) byId("own-label").textContent = "Or one of your own";
    byId("presets").replaceChildren(
      ...PRESETS.filter((preset) => this.offers(preset)).map((preset) =>
        el("button", { type: "button", "aria-pressed": "false", onclick: () => this.take(preset) }, preset.name)),
    );
    const rewards = byId("reward");
    if (this.data.annotators.length) rewards.append(el("option", { value: "utility" }, "the annotator's own utility"));
    for (const { name, label } of this.data.rewards) rewards.append(el("option", { value: name }, label));
    rewards.onchange = () => {
      this.state.reward = rewards.value;
      if (rewards.value !== "utility" && this.state.method === "dpo") this.state.method = "tilt";
      this.settle();
    };
    const annotators = byId("annotator");
    this.data.annotators.forEach(({ label }, k) => annotators.append(el("option", { value: k }, label)));
    annotators.onchange = () => {
      this.takeAnnotator(Number(annotators.value));
      this.state.reward = "utility";
      this.settle();
    };
    const methods = byId("method");
    for (const [name, label] of METHODS) methods.append(el("option", { value: name }, label));
    methods.onchange = () => {
      this.state.method = methods.value;
      if (methods.value === "dpo" && this.data.annotators.length) this.state.reward = "utility";
      this.settle();
    };
    slide(byId("coefficient"), (value) => (this.state.place = value), () => this.moved());
    slide(byId("n"), (value) => (this.state.n = 2 ** value), () => this.moved());
    const prompts = byId("prompt");
    this.data.prompts.forEach(({ text, opinion }, k) =>
      prompts.append(el("option", { value: k }, opinion && opinion !== "none" ? `${text}  (${opinion} opinion)` : text)));
    prompts.onchange = () => {
      this.state.prompt = Number(prompts.value);
      this.answers.own = null;
      this.generate();
    };
    byId("gauges").replaceChildren(...GAUGES.map(({ name, label, unit }) =>
      el("li", { class: "gauge", id: `gauge-${name}` },
        el("h3", {}, label), el("p", { class: "value", id: `value-${name}` }), el("p", { class: "quiet unit" }, name === "gold" ? this.truth : unit),
        el("p", { class: "change", id: `change-${name}` }), el("p", { class: "why quiet", id: `why-${name}` }))));
    byId("gold-is").textContent = this.truth;
    this.showCheckpoints();
    this.showControls();
  }

  /** What the gold reward is here. */
  get truth() {
    return this.data.gold == null ? "the truth" : `what ${this.data.gold} makes of the answers`;
  }

  moved() {
    for (const button of byId("presets").children) button.setAttribute("aria-pressed", "false");
    this.showControls();
    this.refresh();
    clearTimeout(this.generating);
    this.generating = setTimeout(() => this.generate(), 150);
  }

  showControls() {
    const { state, data } = this;
    byId("reward").value = state.reward;
    byId("annotator").value = state.annotator;
    byId("method").value = state.method;
    byId("prompt").value = state.prompt;
    byId("who").hidden = !data.annotators.length;
    const best = state.method === "best";
    byId("coefficient-row").hidden = best;
    byId("n-row").hidden = !best;
    byId("coefficient").value = state.place;
    const named = coefficientName(state.place);
    byId("coefficient").setAttribute("aria-valuetext", named);
    byId("coefficient-name").textContent = named;
    byId("n").value = Math.log2(state.n);
    byId("n").setAttribute("aria-valuetext", String(state.n));
    byId("n-name").textContent = String(state.n);
    this.showTerms();
  }

  showTerms() {
    const place = byId("terms"), shownFor = String(this.state.annotator);
    if (place.dataset.of !== shownFor) {
      place.dataset.of = shownFor;
      place.replaceChildren(...rows(this.terms, (input, take) => slide(input, () => take(this.state.weights), () => this.moved())));
    }
    show(this.terms, this.state.weights, this.state.reward === "utility");
  }

  showFormula() {
    const ours = this.state.reward === "utility";
    const told = this.parts().map(({ label }, k) => [ours ? this.state.weights[k] : this.parts()[k].weight, label])
      .filter(([weight]) => Math.abs(weight) > 0.049);
    const sum = told.map(([w, label], k) => `${k ? (w < 0 ? " − " : " + ") : w < 0 ? "−" : ""}${Math.abs(w).toFixed(1)} × ${label}`).join("");
    byId("formula").textContent = ours
      ? `utility = ${sum || "0: nothing is wanted"}`
      : sum && `about ${sum}, with preferences of its own beside`;
    byId("meaning").textContent = ours
      ? "The reward is the annotator's own utility: what a perfect reward model would learn."
      : this.state.reward === "gold" ? "What is optimised is the truth itself, as if nothing had to be learnt."
      : "A reward that a run was really trained with. It is what it is: nothing in it can be moved.";
  }

  showGauges() {
    const sure = this.now.effective >= ENOUGH;
    for (const { name, digits, percent: share } of GAUGES) {
      const now = this.now[name], before = this.before[name];
      byId(`gauge-${name}`).hidden = Number.isNaN(now);
      const shown = (v) => (share ? percent(v) : plain(v, digits));
      byId(`value-${name}`).textContent = shown(now);
      byId(`change-${name}`).textContent = name === "kl" ? "SFT model: 0" : `SFT model: ${shown(before)}`;
    }
    const missing = GAUGES.filter(({ name }) => Number.isNaN(this.now[name])).map(({ label }) => label);
    byId("missing").textContent = missing.length ? `Not to be told here, since the data do not know it of these answers: ${missing.join(", ").toLowerCase()}.` : "";
    byId("gauges").classList.toggle("unsure", !sure);
    byId("effective").textContent = this.data.exact
      ? `Exact: all ${this.data.samples} responses to each prompt are written down with their probabilities, and nothing is sampled.`
      : `${Math.round(this.now.effective)} of ${this.data.samples} samples a prompt count (effective sample size, median).`;
    byId("effective").classList.toggle("warning", !sure);
    byId("too-few").textContent = sure ? "" : `Below ${ENOUGH} effective samples the samples no longer tell: the grey figures are what few of them happen to say.`;
  }

  showCurves() {
    const kept = this.curve();
    for (const name of ["proxy", "gold"]) {
      const known = !Number.isNaN(this.now[name]);
      byId(`figure-${name}`).hidden = !known;
      if (!known) continue;
      drawPlot(byId(`plot-${name}`), {
        title: name === "proxy" ? "Proxy reward" : "Gold reward",
        axis: "√KL from the SFT model",
        curve: kept.map((p) => ({ x: p.x, y: p[name], sure: p.sure })),
        now: { x: Math.sqrt(this.now.kl), y: this.now[name], sure: this.now.effective >= ENOUGH },
        dots: this.checkpoints.map((c, k) => this.dot(c, k, name)),
      });
    }
    byId("dots").hidden = !this.checkpoints.length;
    byId("checkpoint").value = this.state.checkpoint ?? "";
  }

  showCheckpoints() {
    byId("checkpoint").replaceChildren(
      ...(this.rewarded ? [el("option", { value: "" }, "the tilted policy")] : []),
      ...this.checkpoints.map((c, k) => el("option", { value: k }, `trained: ${c.label}`)),
    );
    byId("checkpoint").value = this.state.checkpoint ?? "";
    byId("checkpoint").onchange = (event) => this.choose(event.target.value === "" ? null : Number(event.target.value));
  }

  /** Every coefficient, or every n. It depends on the reward alone: moving the coefficient moves along it. */
  curve() {
    const { set, reward } = this;
    const best = this.state.method === "best";
    const drawnFor = JSON.stringify([best, this.state.reward, this.state.reward === "utility" && this.state.weights]);
    if (this.drawnFor === drawnFor) return this.points;
    const policies = best ? NUMBERS.map((n) => bestOf(reward, n, set)) : BETAS.map((beta) => tilted(reward, beta, set));
    const points = policies.map(({ weights, kl, ess }) => ({
      x: Math.sqrt(mean(kl)), proxy: expected(reward, weights, set), gold: expected(set.columns.gold, weights, set),
      sure: median(ess) >= ENOUGH,
    }));
    const end = points.findIndex((p) => !p.sure);
    this.drawnFor = drawnFor;
    this.points = end < 0 ? points : points.slice(0, end + 4);
    return this.points;
  }

  dot(c, k, name) {
    const reward = name === "gold" ? c.columns.gold : this.rewardOf(c.columns, c.texts.length);
    return {
      x: Math.sqrt(Math.max(c.kl ?? c.bound, 0)), y: c.shares ? expected(reward, c.shares, this.set) : average(reward), label: c.label, chosen: this.state.checkpoint === k,
      choose: () => this.choose(this.state.checkpoint === k ? null : k),
    };
  }

  addCheckpoint(read) {
    this.checkpoints.push(read);
    this.showCheckpoints();
    if (this.rewarded) this.showCurves();
  }

  choose(k) {
    this.state.checkpoint = k;
    if (this.rewarded) this.showCurves();
    this.generate();
    if (k != null) notice(`The answers on the right are now those of ${this.checkpoints[k].label}.`);
  }
}

/** A minus sign for negative numbers, and none for zero. */
function plain(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

function average(values) {
  return Array.from(values).reduce((a, b) => a + b, 0) / values.length;
}

function slide(input, take, then) {
  let waiting = false;
  input.addEventListener("input", () => {
    take(Number(input.value));
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      then();
    });
  });
}
