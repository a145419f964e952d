// What became of the SFT model: its figures and its answers, beside those of the policy that learnt from the rankings.
import { get } from "./api.js";
import { el } from "./dom.js";
import { card } from "./explorer/beside.js";
import { pager } from "./explorer/parts.js";

/** What a reader looks for first. */
const CHIEF = ["optimization/gold_reward", "helpfulness/accuracy", "sycophancy/agreement", "diversity/entropy", "optimization/kl"];
const TRIES = 15; // seconds until the results folder has been looked at again

export function metrics(progress, table) {
  const plain = (value) => value.toFixed(2);
  const names = Object.keys(progress.metrics).filter((name) => progress.metrics[name] !== null);
  const row = (name) => {
    const before = progress.before[name];
    const after = progress.metrics[name];
    const known = typeof before === "number";
    return [name, known ? plain(before) : "–", plain(after), known ? (after - before >= 0 ? "+" : "") + plain(after - before) : ""];
  };
  const head = ["Metric", "SFT model", "Trained on these rankings", "Difference"];
  const chief = CHIEF.filter((name) => names.includes(name));
  const rest = names.filter((name) => !chief.includes(name));
  return [
    chief.length ? table("What changed", head, chief.map(row)) : null,
    rest.length ? el("details", {}, el("summary", {}, `${rest.length} more figures`), table("What else changed", head, rest.map(row))) : null,
  ].filter(Boolean);
}

/** The same prompts, answered by both: read when it is opened. `open`: of a run that was watched until its end. */
export function answers(run, open) {
  const place = el("div", {}, el("p", { class: "quiet" }, "Reading the answers…"));
  const sft = `${run}/sft`;
  const names = new Map([[sft, "SFT model"], [run, "Trained on these rankings"]]);
  const query = new URLSearchParams([["run", sft], ["run", run]]);
  const show = async (page) => {
    query.set("page", page);
    for (let left = TRIES; ; left--) {
      try {
        const found = await get(`/results/responses?${query}`);
        place.replaceChildren(
          ...found.prompts.map((prompt) => card(prompt, found.columns, names, "")),
          pager(`answers-${run}`, found, "prompts", show),
        );
        return;
      } catch (error) {
        if (!left) return place.replaceChildren(el("p", { class: "bad" }, error.message));
        await new Promise((go) => setTimeout(go, 1000));
      }
    }
  };
  let read = false;
  const ontoggle = (event) => {
    if (event.target.open && !read) show(1);
    read ||= event.target.open;
  };
  return el("details", { class: "beside", open, ontoggle }, el("summary", {}, "The same prompts, answered by both"), place);
}
