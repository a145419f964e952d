// Dragging by mouse, pen or finger: a copy follows the pointer, the place below it lights up.
import { el } from "./dom.js";

export function draggable(node, dropped) {
  node.addEventListener("pointerdown", (event) => draggable.start(event, node, dropped));
}

draggable.start = (event, node, dropped) => {
  if (event.button) return;
  const from = [event.clientX, event.clientY];
  let ghost = null;
  let over = null;
  const mark = (tier) => {
    if (tier === over) return;
    over?.classList.remove("over");
    tier?.classList.add("over");
    over = tier;
  };
  const move = (moved) => {
    if (!ghost && Math.hypot(moved.clientX - from[0], moved.clientY - from[1]) < 6) return;
    moved.preventDefault();
    if (!ghost) document.body.append((ghost = el("div", { class: "ghost", "aria-hidden": "true" }, node.textContent)));
    ghost.style.left = `${moved.clientX}px`;
    ghost.style.top = `${moved.clientY}px`;
    mark(document.elementFromPoint(moved.clientX, moved.clientY)?.closest(".tier") || null);
  };
  const end = (ended) => {
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", end);
    removeEventListener("pointercancel", end);
    if (!ghost) return;
    ghost.remove();
    const target = over;
    mark(null);
    if (ended.type === "pointerup") dropped(target);
  };
  addEventListener("pointermove", move, { passive: false });
  addEventListener("pointerup", end);
  addEventListener("pointercancel", end);
};
