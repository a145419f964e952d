// How a project stands, and runs that learn from its rankings.
import { along } from "./along.js";
import { get, post } from "./api.js";
import { el, notice, svg } from "./dom.js";
import { answers, metrics } from "./rank_changed.js";

const base = location.pathname.replace(/\/+$/, "");
const board = document.getElementById("board");
const percent = (value) => `${Math.round(100 * value)}%`;
const plain = (value) => value.toFixed(2);

function bounds(figure, show) {
  if (figure.value === null) return "too few to tell";
  const interval = figure.low === null ? "" : ` (${show(figure.low)} to ${show(figure.high)})`;
  return `${show(figure.value)}${interval}`;
}

function figure(name, given, show, why) {
  return el(
    "div",
    { class: "card" },
    name,
    el("strong", {}, given.value === null ? "–" : show(given.value)),
    el("span", { class: "quiet" }, given.value === null ? "too few to tell yet" : given.low === null ? why : `95%: ${show(given.low)} to ${show(given.high)}. ${why}`),
  );
}

function table(caption, head, rows) {
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map(([name, ...cells]) => el("tr", {}, el("th", { scope: "row" }, name), cells.map((cell) => el("td", {}, cell))))),
    ),
  );
}

function draw(state) {
  const { agreement } = state;
  const items = `${state.items} items, each for ${state.people} ${state.people === 1 ? "person" : "people"}; ${state.gold_items} gold questions`;
  const about = Object.entries(state.about).map(([key, value]) => `${key}: ${value}`);
  board.replaceChildren(
    el("p", {}, [items, ...about].join(" · ")),
    el(
      "p",
      {},
      el("label", {}, `${state.have} of ${state.needed} rankings `, el("progress", { max: Math.max(state.needed, 1), value: state.have })),
    ),
    el(
      "div",
      { class: "figures" },
      state.win_rate ? figure("Preferred by people, ties half", state.win_rate, percent, "Of the first run over the second.") : "",
      figure("Agreement (Krippendorff's alpha)", agreement.alpha, plain, "1: all agree; 0: as by chance."),
      figure("Right on gold questions", agreement.gold, percent, "Of the pairs with a right order."),
      figure("Prefers what is shown first", agreement.first, percent, "Half where the place sways nobody."),
    ),
    agreement.people.length
      ? table(
          "Each person",
          ["Name", "Answers", "Could not judge", "Seconds an item (median)", "Right on gold", "Prefers the first"],
          agreement.people.map((one) => [
            one.name,
            one.answers,
            one.cannot_judge,
            one.seconds === null ? "–" : one.seconds.toFixed(1),
            bounds(one.gold, percent),
            bounds(one.first, percent),
          ]),
        )
      : el("p", { class: "quiet" }, "Nobody has answered yet."),
    agreement.couples.length
      ? table(
          "Between two people: Kendall's tau, over the items that both ranked",
          ["People", "Tau", "Items"],
          agreement.couples.map((one) => [`${one.first} and ${one.second}`, plain(one.tau), one.items]),
        )
      : "",
  );
  document.getElementById("training").hidden = state.kind !== "rank";
  document.getElementById("settings").textContent =
    `The ordinary command, in a process of its own: alignbench ${state.overrides.join(" ")} algo=… annotator=recorded annotator.path=<these rankings>`;
}

async function refresh() {
  try {
    draw(await get(`${base}/board`));
  } catch (error) {
    if (error.status) board.replaceChildren(el("p", { class: "card bad" }, error.message));
    else notice("The server cannot be reached. Trying again…");
  }
}

// Runs

const RUNNING = ["starting", "running"];
const watched = new Map();

function watch(training) {
  if (watched.has(training.id)) return;
  const view = { lines: [], points: [], seen: false, node: el("article", { class: "card", "aria-label": `Run ${training.id}` }) };
  watched.set(training.id, view);
  document.getElementById("runs").prepend(view.node);
  follow(training.id, view);
}

async function follow(id, view) {
  for (;;) {
    let progress;
    try {
      progress = await get(`${base}/training/${id}?after=${view.lines.length}&point=${view.points.length}`);
    } catch (error) {
      if (error.status) {
        view.node.replaceChildren(el("p", { class: "bad" }, error.message));
        return;
      }
      await new Promise((go) => setTimeout(go, 2000));
      continue;
    }
    // A run that goes on after a stop repeats what came after its checkpoint: then there are fewer than were known.
    view.lines = [...view.lines.slice(0, progress.next - progress.lines.length), ...progress.lines];
    view.points = [...view.points.slice(0, progress.next_point - progress.points.length), ...progress.points];
    drawRun(view, progress);
    if (!RUNNING.includes(progress.status)) {
      view.done = true;
      return;
    }
    await new Promise((go) => setTimeout(go, 1000));
  }
}

const FIGURES = ["accuracy", "reward", "loss"];

function drawRun(view, progress) {
  const last = view.lines.at(-1);
  const running = RUNNING.includes(progress.status);
  view.seen ||= running;
  const algo = progress.overrides.find((one) => one.startsWith("algo="))?.slice(5) ?? "";
  const words = running && last ? `${last.stage}, update ${last.update}` : "";
  const act = async (what) => {
    try {
      await post(`${base}/training/${progress.id}/${what}`);
      if (what === "resume") follow(progress.id, view);
    } catch (error) {
      notice(error.message);
    }
  };
  const focus = view.node.contains(document.activeElement) ? document.activeElement.textContent : null;
  view.node.replaceChildren(
    el("h3", {}, `${algo}: ${progress.status}`),
    el("p", { class: "quiet" }, [words, progress.run].filter(Boolean).join(" · ")),
    progress.error ? el("p", { class: "bad" }, progress.error) : "",
    curve(view.lines),
    saying(view.points),
    ...(progress.status === "finished" ? [...metrics(progress, table), answers(progress.run, view.seen)] : []),
    el(
      "p",
      { class: "actions" },
      running ? el("button", { onclick: () => act("stop") }, "Stop") : null,
      progress.status === "interrupted" ? el("button", { onclick: () => act("resume") }, "Go on") : null,
    ),
    el("details", {}, el("summary", {}, "What the command says"), el("pre", { tabindex: "0" }, progress.said.join("\n"))),
  );
  if (focus) [...view.node.querySelectorAll("button, summary")].find((one) => one.textContent === focus)?.focus();
}

/** What it answers to one prompt while it learns: where there is one, to a user who is wrong. */
function saying(points) {
  const said = points.at(-1)?.said ?? [];
  const chosen = said.find((one) => one.opinion === "wrong") ?? said[0];
  if (!chosen) return "";
  return el("div", {}, el("p", {}, el("span", { class: "quiet" }, "Asked: "), el("bdi", {}, chosen.asked)),
    el("ol", { class: "along", "aria-label": "What it answers, update by update", tabindex: "0" }, along(points, chosen.prompt)));
}

/** The curve of the stage that is trained now: the first figure that it has. */
function curve(lines) {
  const stage = lines.at(-1)?.stage;
  const own = lines.filter((line) => line.stage === stage);
  const name = FIGURES.find((one) => own.some((line) => typeof line[one] === "number"));
  const points = own.filter((line) => typeof line[name] === "number").map((line) => [line.update, line[name]]);
  if (points.length < 2) return "";
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const path = points
    .map(([x, y], i) => `${i ? "L" : "M"}${(100 * (x - x0)) / (x1 - x0 || 1)} ${39 - (38 * (y - y0)) / (y1 - y0 || 1)}`)
    .join(" ");
  const label = `${stage}: ${name} from ${ys[0].toPrecision(3)} to ${ys.at(-1).toPrecision(3)} over ${points.length} updates`;
  return el(
    "figure",
    {},
    svg("svg", { class: "curve", viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label }, svg("path", { d: path })),
    el("figcaption", { class: "quiet" }, label),
  );
}

document.getElementById("train").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const { algo, passes, seed } = form.elements;
    const training = await post(`${base}/train`, { algo: algo.value, passes: Number(passes.value), seed: Number(seed.value) });
    watch(training);
  } catch (error) {
    notice(error.message, 12);
  } finally {
    button.disabled = false;
  }
});

await refresh();
try {
  for (const training of (await get(`${base}/training`)).reverse()) watch(training);
} catch (error) {
  notice(error.message);
}
setInterval(refresh, 5000);
