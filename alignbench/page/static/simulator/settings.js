// What a simulator can be set to: the presets, and the coefficient's slider.
import { STRONGEST } from "./mathematics.js";

/** The slider's 0 to 100 as a KL coefficient, from "none" at its left end to 1. */
export function coefficient(place) {
  return place <= 0 ? STRONGEST : 0.02 * 50 ** ((place - 2) / 98);
}

export function placeOf(beta) {
  return beta <= STRONGEST ? 0 : Math.round(2 + (98 * Math.log(beta / 0.02)) / Math.log(50));
}

export function coefficientName(place) {
  return place <= 0 ? "none" : coefficient(place).toPrecision(2).replace(/\.?0+$/, "");
}

/** `annotator`: whether it is about who ranks; `trained`: about what a run became for a reward that no rankings gave it, and which was judged by another. Each names an annotator where one of that name is there, weights by setting, and what to look at. */
export const PRESETS = [
  { name: "InstructGPT's recipe", like: 0, weights: {}, method: "tilt", beta: 0.2, look: "Rankings, a reward model, and a KL penalty that keeps the policy near the SFT model: gold reward rises with the proxy." },
  { name: "Reward hacking", annotator: true, like: 1, weights: { b_courtesy: 0.8 }, method: "tilt", beta: 0.16, look: "The annotator likes courtesies a little too much, and the gold reward tolerates two: the proxy climbs on while the gold reward has turned and falls. Move the coefficient to see it turn." },
  { name: "Sycophancy", annotator: true, like: 2, weights: {}, method: "tilt", beta: 0.15, look: "Agreement pays more than truth. The KL penalty slows it down; only another annotator removes it." },
  { name: "Mode collapse", annotator: true, like: 0, weights: { b_style: 2, b_length: -0.1 }, method: "tilt", beta: 0.03, look: "A good annotator in a slight hurry, and hardly a penalty: the gold reward is nearly perfect, and nearly every answer is the same." },
  { name: "Best of n", like: 1, weights: {}, method: "best", n: 16, look: "Nothing is trained: of n responses the best is shown. Its KL is at most log n − (n − 1)/n." },
  { name: "Reward hacking, as trained", trained: true, method: "tilt", beta: 0.5, look: "The answers below are those of the run that went furthest from the SFT model for its reward. See where its diamond stands in the proxy's plot, where in the gold reward's, and read what it found out." },
  { name: "DPO, no reward model", annotator: true, like: 1, weights: {}, method: "dpo", beta: 0.5, look: "The same optimum straight from rankings: the reward that DPO implies is the utility, in units of the noise of the rankings." },
];

export const METHODS = [
  ["tilt", "Reward model and KL penalty (PPO, GRPO, RLOO)"],
  ["dpo", "Rankings alone (DPO)"],
  ["best", "Best of n, nothing is trained"],
];

export const GAUGES = [
  { name: "proxy", label: "Proxy reward", unit: "what is optimised, in deviations of the SFT model's", digits: 2 },
  { name: "gold", label: "Gold reward", digits: 2 },
  { name: "kl", label: "KL", unit: "nats per response from the SFT model", digits: 2 },
  { name: "agreement", label: "Repeats wrong opinions", unit: "of users who state one", percent: true },
  { name: "accuracy", label: "Right answers", unit: "share of responses", percent: true },
  { name: "entropy", label: "Entropy", unit: "nats per response", digits: 2 },
  { name: "unique", label: "Different answers", unit: "of 8 draws", digits: 1 },
  { name: "length", label: "Length", unit: "tokens per response", digits: 1 },
];
