"use strict";
// Everything shown here came out of models and runs: it is set as text, never as HTML.
(() => {
  const root = document.documentElement;

  // In the head, so that it sees whatever goes wrong further down: what a test of the page reads.
  const failed = (what) => { root.dataset.errors = (root.dataset.errors || "") + what + "\n"; };
  addEventListener("error", (event) => failed(event.message || "could not load " + event.target.tagName), true);
  addEventListener("securitypolicyviolation", (event) => failed("blocked: " + event.violatedDirective));

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // The theme, before anything is painted. A browser may keep nothing for a file: then it lasts as long as the page.
  const THEME = "alignbench-theme";
  const kept = () => { try { return localStorage.getItem(THEME) || ""; } catch { return ""; } };
  const wear = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; };
  wear(kept());

  const controls = () => {
    const choice = document.getElementById("theme");
    choice.value = kept();
    choice.addEventListener("change", () => {
      wear(choice.value);
      try { localStorage.setItem(THEME, choice.value); } catch { /* see above */ }
    });
    const unfold = document.getElementById("unfold");
    unfold.addEventListener("click", () => {
      const open = unfold.getAttribute("aria-pressed") === "false";
      unfold.setAttribute("aria-pressed", String(open));
      for (const part of document.querySelectorAll("details")) part.open = open;
    });
    document.getElementById("controls").hidden = false;
  };

  const folds = () => {
    const reveal = () => {
      let name = location.hash.slice(1);
      try { name = decodeURIComponent(name); } catch { return; }
      const target = document.getElementById(name);
      const part = target && target.closest("details");
      if (part) { part.open = true; target.scrollIntoView(); }
    };
    addEventListener("hashchange", reveal);
    reveal();
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open])")];
      for (const part of closed) part.open = true;
    });
    addEventListener("afterprint", () => { for (const part of closed) part.open = false; });
  };

  // On which side a frame has more than it shows.
  const cues = () => {
    const look = (part) => {
      const frame = part.parentElement;
      frame.toggleAttribute("data-right", part.scrollLeft + part.clientWidth < part.scrollWidth - 2);
      frame.toggleAttribute("data-below", part.scrollTop + part.clientHeight < part.scrollHeight - 2);
    };
    const sizes = new ResizeObserver((seen) => { for (const { target } of seen) look(target); });
    for (const part of document.querySelectorAll(".frame > .scroll")) {
      part.addEventListener("scroll", () => look(part), { passive: true });
      sizes.observe(part);
    }
  };

  const figure = (number) => {
    const size = Math.abs(number);
    return size && (size >= 1e5 || size < 1e-3) ? number.toExponential(2) : String(Number(number.toPrecision(4)));
  };

  // A panel that is pointed at, or walked through with the arrow keys, tells the values of its nearest point.
  const NEAR = 24;
  const pointed = (svg, { area: [left, top, width, height], x, y, labels, names, series }) => {
    const marks = series.flatMap(({ row, points }) => points.map((point) => ({
      row, point,
      at: [left + ((point[0] - x[0]) / (x[1] - x[0])) * width, top + (1 - (point[1] - y[0]) / (y[1] - y[0])) * height],
    }))).sort((a, b) => (names.length ? a.at[1] - b.at[1] : a.at[0] - b.at[0] || a.at[1] - b.at[1]));
    if (!marks.length) return;
    const within = (low, high) => (low == null || high == null ? "" : ` [${figure(low)}, ${figure(high)}]`);
    const said = ({ point: [a, b, yLow, yHigh, xLow, xHigh] }) =>
      `${labels[0]} ${figure(a)}${within(xLow, xHigh)}` + (names.length ? "" : `, ${labels[1]} ${figure(b)}${within(yLow, yHigh)}`);
    const box = svg.viewBox.baseVal;
    const tip = element("div", "tip"), spoken = element("p", "spoken");
    const halo = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    tip.hidden = true;
    spoken.setAttribute("aria-live", "polite");
    halo.setAttribute("class", "halo");
    halo.setAttribute("r", 6);
    let current = -1;
    const show = (index, aloud) => {
      current = index;
      tip.hidden = index < 0;
      if (index < 0) { halo.remove(); return; }
      const { row, at } = marks[index];
      halo.setAttribute("cx", at[0]);
      halo.setAttribute("cy", at[1]);
      svg.append(halo);
      tip.replaceChildren(element("b", "", row), element("br", ""), said(marks[index]));
      const scale = svg.clientWidth / box.width;
      tip.style.left = `${Math.max(0, Math.min((at[0] - box.x) * scale + 10, svg.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${(at[1] - box.y) * scale + 10}px`;
      if (aloud) spoken.textContent = `${row}: ${said(marks[index])}`;
    };
    svg.setAttribute("tabindex", 0);
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")}: ${marks.length} points; arrow keys go from one to the next`);
    svg.after(tip, spoken);
    const follow = (event) => {
      const seen = svg.getBoundingClientRect(), scale = seen.width / box.width;
      const [px, py] = [(event.clientX - seen.left) / scale + box.x, (event.clientY - seen.top) / scale + box.y];
      let best = -1, least = NEAR;
      marks.forEach(({ at }, index) => {
        const far = Math.hypot(at[0] - px, at[1] - py);
        if (far < least) [best, least] = [index, far];
      });
      show(best);
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", () => show(-1));
    svg.addEventListener("blur", () => show(-1));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") show(-1);
      else if (step) show(current < 0 ? (step > 0 ? 0 : marks.length - 1) : (current + step + marks.length) % marks.length, true);
      else return;
      event.preventDefault();
    });
  };

  const message = ([role, content]) => {
    const made = element("div", "message");
    made.append(element("span", "role", role), element("bdi", "said", content));
    return made;
  };

  const card = (name, responses) => {
    const made = element("div", "card");
    made.append(element("h3", "", name));
    for (const { text, note } of responses) made.append(element("bdi", "said", text), element("div", "note", note));
    if (!responses.length) made.append(element("div", "note", "was not asked this"));
    return made;
  };

  const sideBySide = ({ columns, prompts }) => {
    const choice = document.getElementById("prompt");
    const show = (index) => {
      const { messages, responses } = prompts[index];
      choice.selectedIndex = index;
      document.getElementById("messages").replaceChildren(...messages.map(message));
      document.getElementById("responses").replaceChildren(...columns.map((name, i) => card(name, responses[i])));
    };
    const step = (by) => () => show((choice.selectedIndex + by + prompts.length) % prompts.length);
    prompts.forEach(({ title }, index) => choice.append(new Option(title, index)));
    choice.addEventListener("change", () => show(choice.selectedIndex));
    document.getElementById("previous").addEventListener("click", step(-1));
    document.getElementById("next").addEventListener("click", step(1));
    show(0);
  };

  addEventListener("DOMContentLoaded", () => {
    const { generations, panels } = JSON.parse(document.getElementById("data").textContent);
    controls();
    document.querySelectorAll("svg.panel").forEach((svg, index) => pointed(svg, panels[index]));
    if (generations.prompts.length) sideBySide(generations);
    folds();
    cues();
    root.dataset.script = "done";
  });
  addEventListener("load", () => {
    const images = [...document.images].filter((image) => image.complete && image.naturalWidth > 0);
    root.dataset.plots = images.length + document.querySelectorAll("svg.panel").length;
  });
})();
