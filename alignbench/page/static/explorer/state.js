// The address holds all that was chosen: a link, "back" and a reload show the same.

const SELECTION = ["only", "row", "metric", "primary", "baseline", "at_kl", "at_budget", "force"];
const listeners = [];

export const params = () => new URLSearchParams(location.search);
export const value = (name) => params().get(name) || "";
export const values = (name) => params().getAll(name);

export function onChange(listener) {
  listeners.push(listener);
}

/** `edit(params)` and show the outcome. `quietly`: a step that "back" does not stop at, as each letter of a search. */
export function change(edit, { quietly = false } = {}) {
  const next = params();
  edit(next);
  const address = `${location.pathname}${next.size ? `?${next}` : ""}`;
  if (quietly) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  listeners.forEach((listener) => listener());
}

export function set(name, given, options) {
  change((next) => {
    next.delete(name);
    for (const one of [given].flat()) if (one !== "" && one != null) next.append(name, one);
    if (SELECTION.includes(name)) next.delete("page");
  }, options);
}

/** Adds the value, or takes it away where it is there. */
export function toggle(name, one, options) {
  const had = values(name);
  set(name, had.includes(one) ? had.filter((other) => other !== one) : [...had, one], options);
}

/** A query with what chooses rows, and `more`. */
export function selection(more = {}) {
  const asked = new URLSearchParams();
  for (const name of SELECTION) for (const one of values(name)) asked.append(name, one);
  for (const [name, given] of Object.entries(more)) for (const one of [given].flat()) if (one) asked.append(name, one);
  return asked.toString();
}

addEventListener("popstate", () => listeners.forEach((listener) => listener()));
