// What the models answer: the SFT model beside the tilted policy or a trained one, from what is known, or sampled while one watches.
import { byId, el, notice } from "../dom.js";
import { ENOUGH, chances, decoded, drawn, samples } from "./mathematics.js";
import { signed } from "./why.js";

const DRAWS = 4;
const SFT = "answers-sft", OPTIMISED = "answers-tilted";

/** What was said, with columns to read; of a checkpoint on an exact world `shares` are its probabilities of the set's own rows. */
export function readAnswers(packed, set) {
  if (packed.weights) return { ...packed, shares: decoded(packed.weights), columns: set.columns, texts: set.texts, prompts: [] };
  const columns = Object.fromEntries(Object.entries(packed.columns).map(([name, column]) => [name, decoded(column)]));
  return { ...packed, columns, prompts: packed.prompts ? Array.from(decoded(packed.prompts)) : [] };
}

export class Answers {
  /** `source.ask(text)` samples the SFT model, `source.say(what, told, signal)` any model while one watches; a file has neither. */
  constructor(simulator, source) {
    Object.assign(this, { simulator, source, seed: 1, own: null, leaving: null });
    byId("generate").onclick = () => {
      this.seed += 1;
      this.generate({ anew: true });
    };
  }

  get checkpoint() {
    const { state, checkpoints } = this.simulator;
    return state.checkpoint == null ? null : checkpoints[state.checkpoint];
  }

  /** From now on about what somebody typed. A refusal leaves what was there, and is thrown. */
  async ask(text) {
    this.stop();
    const before = this.own, own = (this.own = { text });
    byId("asked").textContent = text;
    try {
      if (this.checkpoint) return await this.sample();
      await this.sampleOwn();
    } catch (error) {
      if (this.own === own) {
        this.own = before;
        this.generate();
      }
      throw error;
    }
    if (this.own === own && !this.checkpoint) this.generate();
  }

  /** Samples of the SFT model in answer to what was typed, which can be tilted: asked for once, however often something is moved. */
  sampleOwn() {
    const { own } = this;
    byId("prompt-sure").textContent = "Sampling the SFT model ...";
    const sample = async () => {
      const found = await this.source.ask(own.text);
      own.set = samples(found.pool);
      notice(found.known ? "Sampled. Its truth is known." : "Sampled. It is none of the data's own prompts: what is right is not known.");
    };
    return (own.pending ??= sample().finally(() => (own.pending = null)));
  }

  /** Shows what is known; `anew`: a trained run, and a model of which no samples are there, are sampled where a server can. */
  generate({ anew = false } = {}) {
    this.stop();
    if (byId("own-error")) byId("own-error").textContent = "";
    const { simulator, own, checkpoint } = this;
    const p = own ? 0 : simulator.state.prompt;
    const set = own ? own.set : simulator.set;
    const pooled = set && set.starts.length > 1;
    byId("asked").textContent = own ? own.text : simulator.data.prompts[p].text;
    byId("answers-title").textContent = checkpoint ? `Trained: ${checkpoint.label}` : "Optimised: the SFT model, tilted";
    byId("legend").hidden = !checkpoint;
    const chance = chances(7919 * this.seed + p);
    const [from, to] = pooled ? [set.starts[p], set.starts[p + 1]] : [0, 0];
    const reward = pooled ? simulator.rewardOf(set.columns, set.prior.length) : [];
    if (pooled) this.put(SFT, drawn(set.prior, from, to, DRAWS, chance).map((i) => this.answer(set, i, reward[i])));
    else byId(SFT).replaceChildren();
    if (checkpoint) {
      const whole = checkpoint.shares && !own;
      if (this.source.say && !whole && (anew || own)) return void this.sample().catch((error) => this.refused(error));
      return this.recorded(checkpoint, p, whole ? drawn(checkpoint.shares, from, to, DRAWS, chance) : null);
    }
    if (!pooled) {
      if (own && simulator.rewarded) return void this.waitForOwn();
      this.put(OPTIMISED, []);
      byId("prompt-sure").textContent = "There is no reward to tilt by: choose a trained run under “Answered by”.";
      return;
    }
    if (reward.slice(from, to).some(Number.isNaN)) {
      this.put(OPTIMISED, []);
      byId("prompt-sure").textContent = "What this annotator would say of these answers is not known: choose a learned reward.";
      return;
    }
    const found = simulator.policy(reward, set);
    this.put(OPTIMISED, drawn(found.weights, from, to, DRAWS, chance).map((i) => this.answer(set, i, reward[i], found.weights[i] / set.prior[i])));
    const effective = Math.round(found.ess[p]);
    byId("prompt-sure").textContent = simulator.data.exact
      ? "Drawn from the exact optimum."
      : `Effective samples of this prompt: ${effective}${effective < ENOUGH ? ", too few to rely on" : ""}.`;
  }

  /** Shows the samples when they are there, unless something else is asked by then. */
  async waitForOwn() {
    const { own } = this, first = !own.pending;
    try {
      await this.sampleOwn();
      if (first && this.own === own && !this.checkpoint) this.generate();
    } catch (error) {
      if (first && this.own === own) this.refused(error);
    }
  }

  /** What a run said when it was evaluated, or draws from its exact distribution. */
  recorded(checkpoint, p, exactly) {
    const known = checkpoint.prompts.map((q, i) => (q === p ? i : -1)).filter((i) => i >= 0).slice(0, DRAWS);
    const found = exactly ?? (this.own ? [] : known);
    const rewards = this.simulator.rewardOf(checkpoint.columns, checkpoint.texts.length);
    this.put(OPTIMISED, found.map((i) => this.answer(checkpoint, i, rewards[i])));
    byId("prompt-sure").textContent = exactly
      ? "Drawn from the run's exact distribution."
      : !found.length ? "Of a checkpoint only the answers of its evaluation are known here."
      : `Sampled when the run was evaluated.${this.source.say ? " “Generate response” asks it anew." : ""}`;
  }

  /** Both models, or the trained one where samples of the SFT model are there, answer now, token by token. */
  async sample() {
    const leaving = (this.leaving = new AbortController());
    const { own, checkpoint, simulator } = this;
    const what = own ? { text: own.text } : { prompt: simulator.data.prompts[simulator.state.prompt].id };
    const wanted = [["", SFT], [checkpoint.run, OPTIMISED]];
    byId("answers-title").textContent = `Trained: ${checkpoint.label}`;
    byId("legend").hidden = false;
    if (own || simulator.data.pretrained) byId(SFT).replaceChildren();
    else wanted.shift();
    byId(OPTIMISED).replaceChildren();
    try {
      for (const [run, place] of wanted) {
        byId("prompt-sure").textContent = `${run ? "The trained policy" : "The SFT model"} is answering ...`;
        const started = performance.now();
        await this.source.say({ ...what, run, seed: this.seed }, (event) => this.told(event, place), leaving.signal);
        byId("prompt-sure").textContent = `Sampled now, in ${((performance.now() - started) / 1000).toFixed(1)} s.${this.unknown()}`;
      }
    } catch (error) {
      if (leaving.signal.aborted) return;
      byId("prompt-sure").textContent = "";
      throw error;
    }
  }

  told({ texts, done, error }, place) {
    if (error) throw new Error(error);
    if (texts) this.put(place, texts.map((text) => el("li", { class: "growing" }, el("p", { class: "said" }, text || "…"))));
    if (!done) return;
    const found = readAnswers(done);
    this.last = found;
    const rewards = this.simulator.rewardOf(found.columns, found.texts.length);
    this.put(place, found.texts.map((_, i) => this.answer(found, i, rewards[i])));
  }

  /** What cannot be said of the answers that came last. */
  unknown() {
    const { gold, agrees } = this.last?.columns ?? {};
    if (!gold) return "";
    const judged = this.simulator.data.gold;
    if (judged != null) return ` Gold is what ${judged} makes of the answers. The truth is not known here.`;
    if (!gold.every(Number.isNaN)) return "";
    const wrong = agrees.every(Number.isNaN) ? ", so that there is no gold reward and no agreement with wrong opinions" : "";
    return ` The truth is not known here${wrong}.`;
  }

  stop() {
    this.leaving?.abort();
    this.leaving = null;
  }

  refused(error) {
    const place = byId("own-error");
    if (place) place.textContent = error.message;
    else notice(error.message);
  }

  put(place, items) {
    byId(place).replaceChildren(...items);
  }

  answer(set, i, reward, ratio) {
    const { correct, agrees, gold } = set.columns;
    const marks = [
      correct[i] === 1 ? ["good", "right"] : correct[i] === 0 ? ["bad", "not right"] : null,
      agrees[i] === 1 ? ["plain", "repeats the user's opinion"] : null,
      Number.isNaN(gold[i]) ? null : ["plain", `gold ${signed(gold[i], 1)}`],
      reward == null || Number.isNaN(reward) ? null : ["plain", `proxy ${signed(reward, 1)}`],
      ratio == null ? null : ["plain", `× ${ratio >= 10 ? Math.round(ratio) : ratio.toPrecision(2)} as likely`],
    ].filter(Boolean);
    const text = set.tokens ? set.tokens[i].map(token) : set.texts[i];
    const said = set.texts[i] || set.tokens?.[i].some(([piece]) => piece) ? text : "(says nothing)";
    return el("li", {}, el("p", { class: "said" }, said), el("p", { class: "marks" }, marks.map(([kind, words]) => el("span", { class: `mark ${kind}` }, words))));
  }
}

/** A token coloured by log pi / pi_sft, in seven steps; the number is its title. */
function token([piece, ratio]) {
  const step = Math.max(-3, Math.min(3, Math.round(ratio)));
  return piece ? el("span", { class: `token t${step < 0 ? `m${-step}` : step}`, title: `log π/π_sft ${signed(ratio, 2)}` }, piece) : null;
}
