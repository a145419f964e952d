// Curves of reward against the square root of the KL: how far the policy went from the SFT model.
import { svg } from "../dom.js";

const WIDTH = 360, HEIGHT = 230, LEFT = 44, RIGHT = 10, TOP = 12, BOTTOM = 38;

/** `curve`: [{x, y, sure}], `now`: {x, y, sure}, `dots`: [{x, y, label, chosen, choose}]. */
export function drawPlot(place, { title, axis, curve, now, dots }) {
  const xs = [...curve.map((p) => p.x), now.x, ...dots.map((d) => d.x)].filter(Number.isFinite);
  const ys = [...curve.map((p) => p.y), now.y, ...dots.map((d) => d.y)].filter(Number.isFinite);
  const right = Math.max(...xs, 0.5) * 1.05;
  const spread = Math.max(...ys) - Math.min(...ys) || 1;
  const low = Math.min(...ys) - 0.08 * spread, high = Math.max(...ys) + 0.08 * spread;
  const x = (v) => LEFT + (v / right) * (WIDTH - LEFT - RIGHT);
  const y = (v) => HEIGHT - BOTTOM - ((v - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = (points) => points.map((p, i) => `${i ? "L" : "M"}${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join("");
  const sure = curve.filter((p) => p.sure);
  const unsure = curve.slice(Math.max(sure.length - 1, 0));
  const words = `${title}. At root KL ${now.x.toFixed(2)} it is ${now.y.toFixed(2)}; the SFT model has ${curve[0].y.toFixed(2)}.`;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "group", "aria-label": words });
  for (const tick of ticks(0, right, 5)) {
    drawing.append(svg("text", { x: x(tick), y: HEIGHT - BOTTOM + 16, class: "tick", "text-anchor": "middle" }, shown(tick)));
  }
  for (const tick of ticks(low, high, 5)) {
    drawing.append(
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(tick) + 4, class: "tick", "text-anchor": "end" }, shown(tick)),
    );
  }
  drawing.append(
    svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, class: "axis", "text-anchor": "middle" }, axis),
    svg("path", { d: path(unsure), class: "curve unsure" }),
    svg("path", { d: path(sure), class: "curve" }),
  );
  for (const dot of dots.filter((d) => Number.isFinite(d.y))) drawing.append(drawnDot(dot, x(dot.x), y(dot.y)));
  drawing.append(svg("circle", { cx: x(now.x), cy: y(now.y), r: 7, class: now.sure ? "now" : "now unsure" }));
  place.replaceChildren(drawing);
}

function drawnDot(dot, cx, cy) {
  const choose = (event) => {
    if (event.type === "keydown" && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    dot.choose();
  };
  return svg(
    "g",
    { class: dot.chosen ? "dot chosen" : "dot", tabindex: 0, role: "button", "aria-pressed": String(dot.chosen), "aria-label": `Trained: ${dot.label}`, onclick: choose, onkeydown: choose },
    svg("circle", { cx, cy, r: 12, class: "reachable" }),
    svg("path", { d: `M${cx},${cy - 6}l6,6l-6,6l-6,-6z` }),
    svg("title", {}, dot.label),
  );
}

function ticks(low, high, about) {
  const rough = (high - low) / about;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high; k++) found.push(k * step);
  return found;
}

function shown(value) {
  return String(Math.round(value * 100) / 100).replace("-", "−");
}

/** Lines over updates, for a run that is being trained: `rows` of train.jsonl, `names` of its figures. */
export function drawTraining(place, rows, names, labels) {
  place.replaceChildren(
    ...names
      .filter((name) => rows.some((row) => Number.isFinite(row[name])))
      .map((name) => {
        const points = rows.map((row) => [row.update, row[name]]).filter(([, v]) => Number.isFinite(v));
        const [low, high] = [Math.min(...points.map((p) => p[1])), Math.max(...points.map((p) => p[1]))];
        const last = points.at(-1)[0] || 1;
        const at = ([u, v]) => `${((u / last) * 150).toFixed(1)},${(44 - ((v - low) / (high - low || 1)) * 40).toFixed(1)}`;
        const words = `${labels[name]} ${shown(points.at(-1)[1])}`;
        return svg(
          "svg",
          { viewBox: "-2 0 156 64", class: "spark", role: "img", "aria-label": words },
          svg("path", { d: `M${points.map(at).join("L")}`, class: "curve" }),
          svg("text", { x: 0, y: 60, class: "tick" }, words),
        );
      }),
  );
}
