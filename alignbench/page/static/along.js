// What a policy answers to one prompt after every few updates, the latest first; before the first update it is the SFT model.
import { el } from "./dom.js";

export function along(points, prompt) {
  const found = points.map(({ update, said }) => [update, said.find((one) => one.prompt === prompt)]).filter(([, one]) => one);
  return found.reverse().map(([update, { text, note }]) =>
    el("li", {}, el("span", { class: "quiet" }, update ? `update ${update} ` : "SFT model "), el("bdi", { class: "said" }, text || "(says nothing)"), el("span", { class: "marks" }, note)));
}
