// A run that has finished while the page is open, in the terms of what the page shows.
import { readAnswers } from "./answers.js";

/** `set`: the responses that the page has; where they are all there are, a run is probabilities of theirs. Prompts and rewards have places and names of their own there: told apart by their ids and by what they are called. */
export function arrived({ checkpoint, prompts, rewards }, data, set) {
  const found = readAnswers(checkpoint, set);
  if (found.shares) return found;
  const columns = { ...found.columns };
  for (const { name } of rewards) delete columns[name];
  for (const { name, label } of data.rewards) {
    const theirs = rewards.find((one) => one.label === label);
    columns[name] = theirs ? found.columns[theirs.name] : new Float64Array(found.texts.length).fill(NaN);
  }
  return { ...found, columns, prompts: found.prompts.map((k) => data.prompts.findIndex((one) => one.id === prompts[k])) };
}
