// One person ranks: the item before them, places for its responses, and every change on its way to the server.
import { get } from "./api.js";
import { el, notice } from "./dom.js";
import { box } from "./markdown.js";
import { Outbox } from "./outbox.js";
import { draggable } from "./rank_drag.js";

const base = location.pathname.replace(/\/+$/, "");
const session = base.startsWith("/annotate/") ? "/annotate/session" : "/session";
const LETTERS = "ABCDEFGHI";
const place = document.getElementById("item");
const saved = document.getElementById("saved");

let shown = null; // the server's state
let draft = null; // what is said of the item
let since = 0; // when the item was last counted from, while it is seen
let noteTimer = null;
let leaving = false; // an answer is under way: what is shown is done with

const outbox = new Outbox(base, session, {
  told: ({ saved: is, words }) => {
    saved.textContent = words;
    saved.classList.toggle("bad", !is && words.startsWith("Not"));
  },
  answered: (state, action) => {
    if (action.kind === "draft") return;
    leaving = false;
    show(state, true);
  },
  refused: (error) => {
    leaving = false;
    notice(error.message, 12);
    load();
  },
});

async function load() {
  try {
    show(await get(`${base}/state`), false);
  } catch (error) {
    place.replaceChildren(
      el("p", { class: "card" }, error.status ? error.message : "The server cannot be reached."),
      el("button", { onclick: load }, "Try again"),
    );
  }
}

function seconds() {
  const seen = document.visibilityState === "visible" && shown?.item ? (performance.now() - since) / 1000 : 0;
  since = performance.now();
  draft.seconds += seen;
  return draft.seconds;
}

document.addEventListener("visibilitychange", () => {
  // What passed until the page was hidden counts; what passes while it is hidden does not.
  if (document.visibilityState === "hidden" && draft) draft.seconds += (performance.now() - since) / 1000;
  since = performance.now();
});

function said() {
  return {
    item: shown.item.number,
    ranks: draft.ranks,
    scales: draft.scales,
    note: draft.note,
    seconds: Math.round(seconds() * 1000) / 1000,
  };
}

function save() {
  if (shown?.item && !leaving) outbox.send({ kind: "draft", ...said() });
}

function answer(ranks) {
  if (!shown?.item || leaving) return;
  draft.ranks = ranks;
  if (ranks.includes(null)) {
    const missing = ranks.flatMap((rank, i) => (rank === null ? [LETTERS[i]] : []));
    notice(`Not ranked yet: ${missing.join(", ")}.`);
    return;
  }
  clearTimeout(noteTimer);
  leaving = true;
  buttons();
  outbox.send({ kind: "answer", ...said() });
}

function undo() {
  if (!shown?.can_undo || leaving) return;
  save();
  leaving = true;
  outbox.send({ kind: "undo" });
}

function nothing(state) {
  if (state.left) return "What is left lies before somebody else. If they leave it for half an hour, it comes to you: look again then.";
  return state.done ? "Thank you: nothing is left for you to rank." : "Nothing is here to rank yet.";
}

function show(state, moved) {
  shown = state;
  since = performance.now();
  const total = state.done + state.left;
  document.getElementById("progress").textContent = `${state.done} done, ${state.left} of ${total} to go`;
  if (!state.item) {
    draft = null;
    place.replaceChildren(
      el("p", { class: "card" }, nothing(state)),
      el(
        "p",
        { class: "actions" },
        state.can_undo ? el("button", { onclick: undo }, "Back to the last one") : null,
        el("button", { onclick: load }, "Look again"),
      ),
    );
    return;
  }
  const count = state.item.responses.length;
  const given = state.item.draft;
  draft = {
    ranks: given.ranks.length ? [...given.ranks] : Array(count).fill(null),
    scales: Object.fromEntries(state.scales.map((name) => [name, [...(given.scales[name] || Array(count).fill(0))]])),
    note: given.note,
    seconds: given.seconds,
  };
  place.replaceChildren(conversation(state.item), responses(state.item), ranking(count), closing());
  update();
  if (moved) {
    scrollTo(0, 0);
    cards()[0].focus({ preventScroll: true });
  }
}

function conversation(item) {
  return el(
    "section",
    { class: "conversation", "aria-label": "Conversation" },
    item.messages.map((message) =>
      el("div", { class: `turn ${message.role}` }, el("h2", {}, message.role), box(message.content, "text")),
    ),
  );
}

const cards = () => [...place.querySelectorAll(".response")];

function responses(item) {
  return el(
    "section",
    { class: "responses", "aria-label": "Responses" },
    item.responses.map((tree, i) =>
      el(
        "article",
        { class: "response", tabindex: "0", "data-index": i, "aria-label": `Response ${LETTERS[i]}` },
        el("h2", { class: "letter", title: "drag it to a place" }, LETTERS[i]),
        item.responses.length > 2 ? picks(i, item.responses.length) : null,
        box(tree, "text"),
        shown.scales.length ? el("div", { class: "scales" }, shown.scales.map((name) => scale(name, i))) : null,
      ),
    ),
  );
}

/** One press gives a place: for fingers, and for whoever cannot drag. */
function picks(i, count) {
  return el(
    "div",
    { class: "picks", role: "group", "aria-label": `Place of response ${LETTERS[i]}, 1 is best` },
    Array.from({ length: count }, (_, rank) =>
      el("button", { class: "pick", "data-pick": rank, "aria-pressed": "false", onclick: () => put(i, draft.ranks[i] === rank ? null : rank) }, rank + 1),
    ),
  );
}

function scale(name, i) {
  const choices = [el("option", { value: 0 }, "–")];
  for (let value = 1; value <= shown.highest; value++) choices.push(el("option", { value }, value));
  const select = el(
    "select",
    {
      "aria-label": `Response ${LETTERS[i]}: ${name}, 1 to ${shown.highest}`,
      onchange: (event) => {
        draft.scales[name][i] = Number(event.target.value);
        save();
      },
    },
    choices,
  );
  select.value = draft.scales[name][i];
  return el("label", {}, `${name} `, select);
}

/** Places for the responses; of two, three buttons. */
function ranking(count) {
  if (count === 2)
    return el(
      "section",
      { class: "pair", "aria-label": "Which is better?" },
      [
        ["A is better", [0, 1]],
        ["They tie", [0, 0]],
        ["B is better", [1, 0]],
      ].map(([words, ranks]) =>
        el("button", { class: "verdict", "data-ranks": ranks.join(), onclick: () => answer(ranks) }, words),
      ),
    );
  return el(
    "section",
    { class: "places", "aria-label": "Places" },
    Array.from({ length: count }, (_, rank) =>
      el(
        "div",
        { class: "tier", "data-rank": rank, role: "group", "aria-label": `Place ${rank + 1}${rank ? "" : ", the best"}` },
        el("span", { class: "quiet" }, rank === 0 ? "1 best" : rank === count - 1 ? `${rank + 1} worst` : rank + 1),
      ),
    ),
    el(
      "div",
      { class: "tier unranked", "data-rank": "", role: "group", "aria-label": "Not ranked yet" },
      el("span", { class: "quiet" }, "not yet"),
    ),
  );
}

function closing() {
  const note = el("textarea", {
    rows: 2,
    maxlength: 10000,
    oninput: (event) => {
      draft.note = event.target.value;
      clearTimeout(noteTimer);
      noteTimer = setTimeout(save, 700);
    },
  });
  note.value = draft.note;
  return el(
    "div",
    { class: "closing" },
    el("label", { class: "note" }, "Note (optional)", note),
    el(
      "p",
      { class: "actions" },
      shown.item.responses.length > 2
        ? el("button", { class: "primary", id: "go", onclick: () => answer(draft.ranks) }, "Save and go on")
        : null,
      el("button", { onclick: () => answer([]) }, "Cannot judge"),
      el("button", { onclick: undo, disabled: !shown.can_undo }, "Undo"),
    ),
  );
}

function buttons() {
  const go = document.getElementById("go");
  if (go) go.disabled = leaving || draft.ranks.includes(null);
}

/** The chips in their places, and what each card says of its own. */
function update() {
  const focused = document.activeElement?.dataset?.chip;
  for (const tier of place.querySelectorAll(".tier")) {
    tier.querySelectorAll(".chip").forEach((chip) => chip.remove());
    draft.ranks.forEach((rank, i) => {
      if (String(rank ?? "") !== tier.dataset.rank) return;
      const chip = el(
        "button",
        {
          class: "chip",
          "data-chip": i,
          "aria-label": `Response ${LETTERS[i]}, ${rank === null ? "not ranked yet" : `place ${rank + 1}`}: press a number`,
          onclick: () => cards()[i].focus(),
        },
        LETTERS[i],
      );
      draggable(chip, (target) => target && put(i, target.dataset.rank === "" ? null : Number(target.dataset.rank)));
      tier.append(chip);
    });
  }
  cards().forEach((card, i) => {
    const rank = draft.ranks[i];
    for (const pick of card.querySelectorAll(".pick")) pick.setAttribute("aria-pressed", pick.dataset.pick === String(rank));
    card.classList.toggle("ranked", rank !== null);
  });
  for (const button of place.querySelectorAll(".verdict"))
    button.setAttribute("aria-pressed", button.dataset.ranks === draft.ranks.join());
  if (focused !== undefined) place.querySelector(`[data-chip="${focused}"]`)?.focus();
  buttons();
}

function put(i, rank) {
  if (leaving) return;
  draft.ranks[i] = rank;
  update();
  save();
}

place.addEventListener("pointerdown", (event) => {
  const letter = event.target.closest(".letter");
  if (!letter || draft?.ranks.length === 2) return;
  const i = Number(letter.closest(".response").dataset.index);
  draggable.start(event, letter, (target) => target && put(i, target.dataset.rank === "" ? null : Number(target.dataset.rank)));
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("textarea, select, input, summary, nav, [href]")) return;
  const key = event.key.toLowerCase();
  if (key === "u") return undo();
  if (!shown?.item) return;
  const all = cards();
  const count = all.length;
  const at = Number(event.target.closest("[data-index]")?.dataset.index ?? event.target.dataset?.chip ?? NaN);
  if (key === "arrowdown" || key === "arrowup") {
    event.preventDefault();
    const next = Number.isNaN(at) ? 0 : (at + (key === "arrowdown" ? 1 : count - 1)) % count;
    all[next].focus();
  } else if (key === "x") answer([]);
  else if (count === 2 && key === "a") answer([0, 1]);
  else if (count === 2 && key === "b") answer([1, 0]);
  else if (count === 2 && (key === "t" || key === "=")) answer([0, 0]);
  else if (count > 2 && /^[0-9]$/.test(key) && Number(key) <= count) {
    const free = draft.ranks.indexOf(null);
    const i = Number.isNaN(at) ? Math.max(free, 0) : at;
    put(i, key === "0" ? null : Number(key) - 1);
    const next = draft.ranks.findIndex((rank, k) => rank === null && k > i);
    const then = next >= 0 ? next : draft.ranks.indexOf(null);
    if (key !== "0" && then >= 0) all[then].focus();
  } else if (count > 2 && key === "enter" && event.target.tagName !== "BUTTON") {
    event.preventDefault();
    answer(draft.ranks);
  }
});

addEventListener("online", () => outbox.flush());
addEventListener("beforeunload", (event) => {
  if (!outbox.empty) event.preventDefault();
});

// What this browser could not send before it was closed comes first.
await outbox.flush();
await load();
