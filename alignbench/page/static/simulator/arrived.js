// A run that has finished while the page is open, in the terms of what the page shows.
import { readAnswers } from "./answers.js";

/** Prompts and rewards have places and names of their own there: told apart by their ids and by what they are called. */
export function arrived({ checkpoint, prompts, rewards }, { data, set }) {
  const found = readAnswers(checkpoint, set);
  if (found.shares) {
    if (prompts.some((id, k) => id !== data.prompts[k]?.id)) throw new Error("other prompts are shown than the server has: load the page again.");
    return found;
  }
  const columns = { ...found.columns };
  for (const { name } of rewards) delete columns[name];
  for (const { name, label } of data.rewards) {
    const known = rewards.some((one) => one.name === name); // the truth itself is no run's reward, and has no other name
    const theirs = rewards.find((one) => one.label === label)?.name ?? (known ? null : name);
    columns[name] = found.columns[theirs] ?? new Float64Array(found.texts.length).fill(NaN);
  }
  return { ...found, columns, prompts: found.prompts.map((k) => data.prompts.findIndex((one) => one.id === prompts[k])) };
}
