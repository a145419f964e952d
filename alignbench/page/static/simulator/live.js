// Real runs with the simulator's settings, in processes of their own, watched while they train, side by side.
import { along } from "../along.js";
import { get, post } from "../api.js";
import { byId, el } from "../dom.js";
import { arrived } from "./arrived.js";
import { drawTraining } from "./plot.js";
import { coefficient, coefficientName } from "./settings.js";

const FIGURES = { reward: "reward", kl: "KL", entropy: "entropy", loss: "loss", length: "length" };
const MEASURED = { gold: "gold, held out", proxy: "proxy, held out", kl: "KL, held out" };
const RUNNING = ["starting", "running"];
/** KL coefficients to see beside one another. */
const PAIR = [0, 0.2];

export async function watchTrainings(simulator) {
  const live = new Live(simulator);
  const begin = (coefficients) => async () => {
    byId("train-error").textContent = "";
    try {
      for (const given of coefficients) {
        const training = await post("/simulator/trainings", { start: simulator.data.key, ...settings(simulator, given) });
        live.show(training.id);
      }
      byId("live").scrollIntoView({ block: "nearest" });
    } catch (refused) {
      byId("train-error").textContent = refused.message;
    }
  };
  byId("train").onclick = begin([null]);
  byId("train-two").onclick = begin(PAIR);
  for (const { id } of (await get("/simulator/trainings")).reverse()) live.show(id);
}

/** What the run is to be: the annotator as the sliders have it or the reward that is chosen, the method, the coefficient; or a `given`
 * coefficient of PPO. */
function settings({ state, terms, data }, given) {
  const chosen = Number(coefficient(state.place).toPrecision(3));
  const method = given == null ? state.method : "tilt";
  const penalty = given ?? (state.place <= 0 ? 0 : chosen);
  const algo = { tilt: "ppo", dpo: "dpo", best: "best_of_n" }[method];
  const options = { tilt: { "algo.kl_coef": penalty }, dpo: { "algo.beta": chosen }, best: { "algo.n": state.n } }[method];
  const annotator = state.reward === "utility" || method === "dpo" ? data.annotators[state.annotator] : null;
  const reward = annotator || method === "dpo" ? null : data.rewards.find(({ name }) => name === state.reward);
  const gold = reward?.name === "gold";
  const weights = Object.fromEntries(terms.map((term, k) => [`annotator.${term.setting}`, state.weights[k]]));
  const told = method === "best" ? `n ${state.n}` : `KL coefficient ${given == null ? coefficientName(state.place) : given || "none"}`;
  return {
    choices: { algo, ...options, ...(annotator ? { annotator: annotator.name, ...weights } : {}), ...(gold ? { reward: "gold" } : {}) },
    reward: reward && !gold ? reward.name : "",
    title: `${algo.toUpperCase()}, ${annotator?.label ?? reward?.label ?? "rankings as in its runs"}, ${told}`,
  };
}

/** All runs that are watched. One prompt is chosen for all of them, so that their answers can be compared. */
class Live {
  constructor(simulator) {
    this.simulator = simulator;
    this.runs = new Map();
    this.prompts = new Map(); // id -> what is asked
    byId("live-prompt").onchange = () => this.runs.forEach((run) => run.answers());
  }

  show(id) {
    this.runs.get(id)?.end();
    byId("live").hidden = false;
    this.runs.set(id, new Run(id, this));
  }

  /** Remembers what is asked at the points of a run; the first is chosen. */
  know(points) {
    const asked = byId("live-prompt");
    for (const { prompt, asked: text, opinion } of points.at(-1)?.said ?? []) {
      if (this.prompts.has(prompt)) continue;
      this.prompts.set(prompt, text);
      asked.append(el("option", { value: prompt }, opinion ? `${text}  (${opinion} opinion)` : text));
    }
    byId("live-asked").hidden = !this.prompts.size;
  }

  get prompt() {
    return byId("live-prompt").value;
  }
}

class Run {
  constructor(id, live) {
    Object.assign(this, { id, live, lines: [], points: [] });
    this.title = el("h3", {});
    this.words = el("p", { class: "quiet", role: "status" }, "starting");
    this.curves = el("div", { class: "sparks" });
    this.measured = el("div", { class: "sparks measured" });
    this.said = el("ol", { class: "along", "aria-label": "What it answers, update by update", tabindex: 0 });
    this.stop = el("button", { type: "button", onclick: () => this.act("stop") }, "Stop");
    this.resume = el("button", { type: "button", hidden: true, onclick: () => this.act("resume") }, "Go on");
    this.links = el("span", { class: "links" });
    this.node = el("li", { class: "card", id: `training-${id}` }, this.title, this.words, this.curves, this.measured, this.said, el("p", {}, this.stop, " ", this.resume, " ", this.links));
    byId("trainings").prepend(this.node);
    this.listen();
  }

  listen() {
    this.events = new EventSource(`/simulator/trainings/${this.id}/events`);
    this.events.onmessage = ({ data }) => this.take(JSON.parse(data));
    this.events.onerror = () => {
      this.words.textContent = this.events.readyState === EventSource.CLOSED
        ? "The connection was lost: load the page again to see how it stands."
        : "The server cannot be reached. Trying again…";
    };
  }

  end() {
    this.events.close();
    this.node.remove();
  }

  async act(what) {
    try {
      await post(`/simulator/trainings/${this.id}/${what}`);
      this.live.show(this.id);
    } catch (refused) {
      this.words.textContent = refused.message;
    }
  }

  take(at) {
    if (at.status === "gone") {
      this.words.textContent = at.error;
      this.stop.hidden = true;
      this.events.close();
      return;
    }
    // Whoever connects anew is told all of it again; a run that goes on takes some of it back.
    this.lines = [...this.lines.slice(0, at.next - at.lines.length), ...at.lines];
    this.points = [...this.points.slice(0, at.next_point - at.points.length), ...at.points];
    this.title.textContent = at.title || at.run;
    this.words.textContent = said(at, this.lines);
    this.words.classList.toggle("warning", at.status === "failed");
    const running = RUNNING.includes(at.status);
    this.watched ||= running;
    this.stop.hidden = !running;
    this.resume.hidden = running || at.status === "finished";
    const stage = this.lines.at(-1)?.stage;
    drawTraining(this.curves, this.lines.filter((row) => row.stage === stage), Object.keys(FIGURES), FIGURES);
    drawTraining(this.measured, this.points, Object.keys(MEASURED), MEASURED);
    this.live.know(this.points);
    this.answers();
    if (running) return;
    this.events.close();
    if (at.run) this.links.replaceChildren(...links(at));
    // One that had finished before the page was opened is among the samples, or is left out there.
    if (at.status === "finished" && this.watched) this.draw(at.run);
  }

  /** The chosen prompt's answer after every few updates, the latest first. */
  answers() {
    this.said.replaceChildren(...along(this.points, this.live.prompt));
    this.said.hidden = !this.said.childElementCount;
  }

  /** A diamond in the plots, as the others are, without a reload. */
  async draw(run) {
    const { simulator } = this.live;
    if (simulator.checkpoints.some((one) => one.run === run)) return;
    const before = this.words.textContent;
    this.words.textContent = `${before} Reading it for the plots…`;
    try {
      const found = await get(`/simulator/checkpoint?start=${encodeURIComponent(simulator.data.key)}&run=${encodeURIComponent(run)}`);
      if (found.checkpoint) simulator.addCheckpoint(arrived(found, simulator));
      this.words.textContent = `${before} ${found.checkpoint ? "It is a diamond in the plots now." : "It answered none of the prompts that are shown: no diamond."}`;
    } catch (error) {
      this.words.textContent = `${before} No diamond: ${error.message}`;
    }
  }
}

function links({ run, status }) {
  const own = encodeURIComponent(run), sft = encodeURIComponent(`${run}/sft`);
  const beside = el("a", { href: `/?view=responses&run=${sft}&run=${own}` }, "Answers beside the SFT model's");
  return [el("a", { href: `/?view=runs&run=${own}` }, "Curves and settings"), ...(status === "finished" ? [" · ", beside, " · ", el("a", { href: "/" }, "Results")] : [])];
}

function said(at, rows) {
  if (at.status === "failed") return `It failed: ${at.error}`;
  if (at.status === "finished") {
    const gold = at.metrics["optimization/gold_reward"], kl = at.metrics["optimization/kl"];
    return `Finished${gold == null ? "" : `: gold reward ${gold.toFixed(2)}${kl == null ? "" : ` at KL ${kl.toFixed(2)}`}`}.`;
  }
  const last = rows.at(-1);
  const where = last ? `${last.stage}, update ${last.update}` : at.said.at(-1) ?? "";
  return at.status === "interrupted" ? `Stopped at ${where}.` : `${at.status}: ${where}`;
}
