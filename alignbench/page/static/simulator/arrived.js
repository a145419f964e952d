// A run that has finished while the page is open, in the terms of what the page shows.
import { readAnswers } from "./answers.js";

/** Prompts have places of their own there: told apart by their ids. A reward that is not shown is left out, one that is not known is NaN. */
export function arrived({ checkpoint, prompts }, { data, set }) {
  const found = readAnswers(checkpoint, set);
  if (found.shares) {
    if (prompts.some((id, k) => id !== data.prompts[k]?.id)) throw new Error("other prompts are shown than the server has: load the page again.");
    return found;
  }
  return { ...found, prompts: found.prompts.map((k) => data.prompts.findIndex((one) => one.id === prompts[k])) };
}
