// Real runs with the simulator's settings, in processes of their own, watched while they train.
import { get, post } from "../api.js";
import { el } from "../dom.js";
import { drawTraining } from "./plot.js";
import { coefficient, coefficientName } from "./settings.js";

const FIGURES = { reward: "reward", kl: "KL", entropy: "entropy", loss: "loss", length: "length" };
const RUNNING = ["starting", "running"];

export async function watchTrainings(simulator) {
  const error = document.getElementById("train-error");
  document.getElementById("train").onclick = async () => {
    try {
      const training = await post("/simulator/trainings", { start: simulator.data.key, ...settings(simulator) });
      error.textContent = "";
      show(training.id, error);
    } catch (refused) {
      error.textContent = refused.message;
    }
  };
  for (const { id } of (await get("/simulator/trainings")).reverse()) show(id, error);
}

/** What the run is to be: the annotator as the sliders have it, the method, the coefficient. */
function settings(simulator) {
  const { state, terms, data } = simulator;
  const beta = Number(coefficient(state.place).toPrecision(3));
  const strength = state.place <= 0 ? 0 : beta;
  const algo = { tilt: "ppo", dpo: "dpo", best: "best_of_n" }[state.method];
  const options = { tilt: { "algo.kl_coef": strength }, dpo: { "algo.beta": beta }, best: { "algo.n": state.n } }[state.method];
  const annotator = data.annotators[state.annotator];
  const weights = Object.fromEntries(terms.map((term, k) => [`annotator.${term.setting}`, state.weights[k]]));
  const told = state.method === "best" ? `n ${state.n}` : `KL coefficient ${coefficientName(state.place)}`;
  return {
    choices: { algo, ...options, ...(annotator ? { annotator: annotator.name, ...weights } : {}) },
    title: `${algo.toUpperCase()}, ${annotator ? annotator.label : "recorded rankings"}, ${told}`,
  };
}

function show(id, error) {
  document.getElementById(`training-${id}`)?.remove();
  const words = el("p", { class: "quiet", role: "status" }, "starting");
  const curves = el("div", { class: "sparks" });
  const title = el("h3", {});
  const act = (what) => async () => {
    try {
      await post(`/simulator/trainings/${id}/${what}`);
      show(id, error);
    } catch (refused) {
      error.textContent = refused.message;
    }
  };
  const stop = el("button", { type: "button", onclick: act("stop") }, "Stop");
  const resume = el("button", { type: "button", hidden: true, onclick: act("resume") }, "Go on");
  document.getElementById("trainings").prepend(el("li", { class: "card", id: `training-${id}` }, title, words, curves, el("p", {}, stop, " ", resume)));
  const rows = [];
  const events = new EventSource(`/simulator/trainings/${id}/events`);
  events.onmessage = ({ data }) => {
    const at = JSON.parse(data);
    rows.push(...at.lines);
    title.textContent = at.title || at.run;
    words.textContent = said(at, rows);
    stop.hidden = !RUNNING.includes(at.status);
    resume.hidden = RUNNING.includes(at.status) || at.status === "finished";
    const stage = rows.at(-1)?.stage;
    drawTraining(curves, rows.filter((row) => row.stage === stage), Object.keys(FIGURES), FIGURES);
    if (!RUNNING.includes(at.status)) events.close();
  };
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) words.textContent = "The connection was lost: load the page again to see how it stands.";
  };
}

function said(at, rows) {
  if (at.status === "failed") return `It failed: ${at.error}`;
  if (at.status === "finished") {
    const gold = at.metrics["optimization/gold_reward"], kl = at.metrics["optimization/kl"];
    const reached = gold == null ? "" : `: gold reward ${gold.toFixed(2)}${kl == null ? "" : ` at KL ${kl.toFixed(2)}`}`;
    return `Finished${reached}. Load the page again to see it as a dot.`;
  }
  const last = rows.at(-1);
  const where = last ? `${last.stage}, update ${last.update}` : at.said.at(-1) ?? "";
  return at.status === "interrupted" ? `Stopped at ${where}.` : `${at.status}: ${where}`;
}
