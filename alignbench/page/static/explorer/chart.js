// One panel of a plot: drawn from the server's numbers, to point at, to zoom into, and to walk through with the keyboard.

import { el, svg } from "/static/dom.js";

const TOP = 8;
const BOTTOM = 46;
const SHAPES = {
  o: "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z", s: "M-4.5-4.5H4.5V4.5H-4.5Z", "^": "M0-5.5L5 4H-5Z", v: "M0 5.5L5-4H-5Z",
  "<": "M-5.5 0L4-5V5Z", ">": "M5.5 0L-4-5V5Z", D: "M0-6L6 0L0 6L-6 0Z", p: "M0-5.5L5.2-1.7L3.2 4.5H-3.2L-5.2-1.7Z",
  h: "M0-5.5L4.8-2.8V2.8L0 5.5L-4.8 2.8V-2.8Z", P: "M-2-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z",
  X: "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z",
  "*": "M0-7L2-2.2L7-2.2L3-.1L4.6 5.6L0 2.6L-4.6 5.6L-3-.1L-7-2.2L-2-2.2Z",
};
const DASHES = { "--": "6 4", "-.": "7 3 2 3", ":": "2 3" };
const NEAR = 30;

const dark = matchMedia("(prefers-color-scheme: dark)");
export const onScheme = (listener) => dark.addEventListener("change", listener);

/** The report's colours are made for white paper: on a dark ground they are mixed with white. */
export function tone(colour) {
  if (!dark.matches) return colour;
  const parts = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return `#${parts.map((part) => Math.round(part + (255 - part) * 0.5).toString(16).padStart(2, "0")).join("")}`;
}

export const marker = (shape, colour, hollow = false) =>
  svg("path", { d: SHAPES[shape] || SHAPES.o, fill: hollow ? "none" : tone(colour), stroke: tone(colour), "stroke-width": hollow ? 1.6 : 0 });

export function figure(number) {
  if (number == null) return "–";
  const size = Math.abs(number);
  return size && (size >= 1e5 || size < 1e-3) ? number.toExponential(2) : String(Number(number.toPrecision(4)));
}

function ticks([low, high], most) {
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** A label in as many lines as its axis is long for. */
function upright(label, length) {
  const at = label.indexOf(" (");
  return label.length * 6.3 > length && at > 0 ? [label.slice(0, at), label.slice(at + 1)] : [label];
}

/** Everything that can be pointed at, once: where it stands and what it says. */
function marksOf(panel, hidden) {
  const found = [];
  const add = (series, i, bars) => {
    const [x, y] = series.xy[i];
    if (x == null || y == null || hidden.has(series.row)) return;
    const within = (ends) => (ends && ends[0] != null && ends[0] !== ends[1] ? ` [${figure(ends[0])}, ${figure(ends[1])}]` : "");
    const named = panel.ticks.length ? panel.ticks.find(([at]) => at === y)?.[1].replace(/\s+/g, " ") : null;
    found.push({ x, y, row: named || series.row, text: `${panel.x.label || panel.title.replace(/\s+/g, " ")} ${figure(x)}${within(bars?.x)}${named ? "" : `, ${panel.y.label || panel.title} ${figure(y)}${within(bars?.y)}`}` });
  };
  for (const series of panel.points) series.xy.forEach((_, i) => add(series, i, { x: series.x_bars[i], y: series.y_bars[i] }));
  const ends = new Map(panel.ticks.length ? panel.lines.filter((l) => !l.rule && !l.marker && l.xy.length === 2).map((l) => [l.xy[0][1] + l.row, [l.xy[0][0], l.xy[1][0]]]) : []);
  for (const line of panel.lines) {
    if (line.rule || !line.row || (panel.ticks.length && !line.marker)) continue;
    line.xy.forEach(([, y], i) => add(line, i, { x: ends.get(y + line.row) }));
  }
  return found.sort((a, b) => a.x - b.x || a.y - b.y);
}

/** `zoom`: [x0, x1, y0, y1] or null; `onzoom` is told of a new one. `hidden`: rows that are not drawn. */
export function chart(panel, { hidden, zoom, onzoom, id, width }) {
  const names = panel.ticks.map(([, name]) => name);
  const left = names.length ? 222 : upright(panel.y.label, Math.round(width * 0.62) - TOP - BOTTOM).length > 1 ? 72 : 58;
  const tallest = Math.max(0, ...names.map((name) => name.split("\n").length));
  const height = names.length ? Math.max(150, 70 + (12 + 12 * tallest) * names.length) : Math.round(width * 0.62);
  const [w, h] = [width - left - 12, height - TOP - BOTTOM];
  const whole = [...panel.x.limits, ...panel.y.limits];
  const [x0, x1, y0, y1] = zoom || whole;
  const toX = (x) => ((x - x0) / (x1 - x0)) * w;
  const toY = (y) => h - ((y - y0) / (y1 - y0)) * h;
  const marks = marksOf(panel, hidden);
  const frame = svg("g", {});
  const inside = svg("svg", { x: left, y: TOP, width: w, height: h, overflow: "hidden" });
  const halo = svg("circle", { r: 9, class: "halo", visibility: "hidden" });
  const box = svg("rect", { class: "box", visibility: "hidden" });

  for (const x of ticks([x0, x1], 6)) {
    frame.append(svg("line", { class: "grid", x1: left + toX(x), x2: left + toX(x), y1: TOP, y2: TOP + h }), svg("text", { x: left + toX(x), y: TOP + h + 17, "text-anchor": "middle" }, figure(x)));
  }
  const rows = names.length ? panel.ticks.filter(([at]) => at >= y0 && at <= y1) : ticks([y0, y1], 6).map((y) => [y, figure(y)]);
  for (const [y, name] of rows) {
    if (!names.length) frame.append(svg("line", { class: "grid", x1: left, x2: left + w, y1: TOP + toY(y), y2: TOP + toY(y) }));
    const lines = name.split("\n");
    frame.append(svg("text", { x: left - 7, y: TOP + toY(y) + 4 - 6 * (lines.length - 1), "text-anchor": "end" }, lines.map((line, i) => svg("tspan", { x: left - 7, dy: i ? 12 : 0 }, line.length > 36 ? `${line.slice(0, 35)}…` : line))));
  }
  frame.append(
    svg("path", { class: "axis", d: `M${left} ${TOP}V${TOP + h}H${left + w}` }),
    svg("text", { x: left + w / 2, y: height - 8, "text-anchor": "middle", class: "title" }, panel.x.label),
    names.length ? null : svg("text", { transform: `translate(12 ${TOP + h / 2}) rotate(-90)`, "text-anchor": "middle", class: "title" }, upright(panel.y.label, h).map((line, i) => svg("tspan", { x: 0, dy: 13 * i }, line))),
  );
  const path = (xy, close = "") => {
    let pen = "M";
    return xy.map(([x, y]) => (x == null || y == null ? ((pen = "M"), "") : `${pen}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}${((pen = "L"), "")}`)).join("") + close;
  };
  const shown = (series) => !hidden.has(series.row);
  for (const band of panel.bands.filter(shown)) inside.append(svg("path", { d: path(band.xy, "Z"), fill: tone(band.colour), opacity: 0.16 }));
  for (const line of panel.lines.filter(shown)) {
    const style = { fill: "none", stroke: tone(line.colour), "stroke-width": line.width, "stroke-dasharray": DASHES[line.dash] || null };
    if (line.rule) inside.append(svg("line", { ...style, class: "rule", stroke: null, x1: toX(line.xy[0][0]), x2: toX(line.xy[0][0]), y1: 0, y2: h }));
    else if (line.dash !== "None" && line.xy.length > 1) inside.append(svg("path", { ...style, d: path(line.xy) }));
    if (line.marker) stamp(line);
  }
  for (const series of panel.points.filter(shown)) {
    if (series.dash !== "None") inside.append(svg("path", { d: path(series.xy), fill: "none", stroke: tone(series.colour), "stroke-dasharray": DASHES[series.dash] || null }));
    series.xy.forEach(([x, y], i) => {
      const bar = (from, to) => inside.append(svg("path", { d: path([from, to]), stroke: tone(series.colour), "stroke-width": 1.3 }));
      if (series.x_bars[i]) bar([series.x_bars[i][0], y], [series.x_bars[i][1], y]);
      if (series.y_bars[i]) bar([x, series.y_bars[i][0]], [x, series.y_bars[i][1]]);
    });
    stamp(series);
  }
  function stamp(series) {
    for (const [x, y] of series.marked ? series.marked.map((i) => series.xy[i]) : series.xy) {
      if (x == null || y == null) continue;
      inside.append(svg("g", { transform: `translate(${toX(x).toFixed(1)} ${toY(y).toFixed(1)})` }, marker(series.marker, series.colour, series.hollow)));
    }
  }
  inside.append(halo, box);

  const tip = el("div", { class: "tip", hidden: true });
  const spoken = el("p", { class: "spoken", "aria-live": "polite" });
  const keys = "arrow keys go from point to point, plus and minus zoom, 0 shows all";
  const drawn = svg("svg", { id, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "application", "aria-label": `${panel.title || panel.y.label}: ${marks.length} points; ${keys}` }, frame, inside);
  const place = el("div", { class: "chart" }, drawn, tip);
  let at = -1;

  function point(mark, speak = false) {
    tip.hidden = !mark;
    halo.setAttribute("visibility", mark ? "visible" : "hidden");
    if (!mark) return;
    halo.setAttribute("cx", toX(mark.x));
    halo.setAttribute("cy", toY(mark.y));
    tip.replaceChildren(el("b", {}, mark.row), el("br"), mark.text);
    const [px, py] = [(left + toX(mark.x)) / width, (TOP + toY(mark.y)) / height];
    tip.style.left = `${Math.min(px, 0.6) * 100}%`;
    tip.style.top = `${py * 100}%`;
    if (speak) spoken.textContent = `${mark.row}: ${mark.text}`;
  }
  const local = (event) => {
    const frame = drawn.getBoundingClientRect();
    return [((event.clientX - frame.left) / frame.width) * width - left, ((event.clientY - frame.top) / frame.height) * height - TOP];
  };
  const within = (x, y) => [Math.min(Math.max(x, 0), w), Math.min(Math.max(y, 0), h)];
  let from = null;
  drawn.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    if (from) {
      const [a, b] = within(x, y);
      Object.entries({ x: Math.min(a, from[0]), y: Math.min(b, from[1]), width: Math.abs(a - from[0]), height: Math.abs(b - from[1]), visibility: "visible" }).forEach(([name, to]) => box.setAttribute(name, to));
      return;
    }
    const far = (mark) => Math.hypot(toX(mark.x) - x, toY(mark.y) - y);
    const nearest = marks.reduce((best, mark) => (!best || far(mark) < far(best) ? mark : best), null);
    point(nearest && far(nearest) < NEAR ? nearest : null);
  });
  drawn.addEventListener("pointerleave", () => from || point(null));
  drawn.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button) return; // a finger scrolls the page; the buttons zoom
    from = within(...local(event));
    drawn.setPointerCapture(event.pointerId);
  });
  drawn.addEventListener("pointerup", (event) => {
    if (!from) return;
    const [[a, b], [c, d]] = [from, within(...local(event))];
    from = null;
    box.setAttribute("visibility", "hidden");
    if (Math.abs(a - c) < 8 || Math.abs(b - d) < 8) return;
    const x = [a, c].map((p) => x0 + (p / w) * (x1 - x0)).sort((p, q) => p - q);
    const y = [b, d].map((p) => y0 + ((h - p) / h) * (y1 - y0)).sort((p, q) => p - q);
    onzoom([...x, ...y]);
  });
  drawn.addEventListener("dblclick", () => onzoom(null));

  function closer(by) {
    const centre = at >= 0 ? [marks[at].x, marks[at].y] : [(x0 + x1) / 2, (y0 + y1) / 2];
    const half = [((x1 - x0) / 2) * by, ((y1 - y0) / 2) * by];
    onzoom([centre[0] - half[0], centre[0] + half[0], centre[1] - half[1], centre[1] + half[1]]);
  }
  drawn.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && marks.length) {
      at = at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length;
      point(marks[at], true);
    } else if (event.key === "+" || event.key === "=") closer(0.6);
    else if (event.key === "-") closer(1 / 0.6);
    else if (event.key === "0" || event.key === "Escape") onzoom(null);
    else return;
    event.preventDefault();
  });
  const button = (what, text, act) => el("button", { id: `${id}-${what}`, type: "button", title: what, "aria-label": `${what}: ${panel.title.replace(/\s+/g, " ")}`, onclick: act }, text);
  return el(
    "figure",
    { class: "panel" },
    el("figcaption", {}, el("span", {}, panel.title), el("span", { class: "zoom" }, button("zoom in", "+", () => closer(0.6)), button("zoom out", "−", () => closer(1 / 0.6)), zoom ? button("whole", "all", () => onzoom(null)) : null)),
    place,
    spoken,
    values(marks, panel),
  );
}

/** The same as numbers, made when somebody opens it. */
function values(marks, panel) {
  const place = el("div", { class: "scroll low", role: "region", tabindex: "0", "aria-label": `values of ${panel.title}` });
  const fill = () => {
    if (place.childElementCount) return;
    place.append(el("table", {}, el("tbody", {}, marks.slice(0, 2000).map((mark) => el("tr", {}, el("th", { scope: "row" }, mark.row), el("td", {}, mark.text))))));
  };
  return el("details", { ontoggle: fill }, el("summary", {}, "Values"), place);
}
