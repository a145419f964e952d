"""What the browser is told of a person's work and of a project, as plain values."""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import asdict
from typing import Any

from alignbench.page.markdown import Node, tree
from alignbench.page.rank import blind
from alignbench.page.rank.agreement import Figure, agreement
from alignbench.page.rank.items import MOST_ON_A_SCALE, SCALES
from alignbench.page.rank.session import State
from alignbench.page.rank.store import Project
from alignbench.seeds import Seeds


def of_state(state: State) -> dict[str, Any]:
    before = state.before
    return {
        "item": None
        if before is None
        else {
            "number": before.number,
            "messages": [{"role": m.role, "content": _tree(m.content)} for m in before.item.messages],
            "responses": [_tree(before.item.responses[k]) for k in before.shown],
            "draft": asdict(before.draft),
        },
        "done": state.done,
        "left": state.left,
        "can_undo": state.can_undo,
        "scales": list(SCALES) if state.settings.scales else [],
        "highest": MOST_ON_A_SCALE,
    }


@functools.lru_cache(maxsize=512)
def _tree(text: str) -> list[Node]:
    return tree(text)


class Boards:
    """How projects stand. Agreement takes a moment to compute: anew after each change alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}

    def of(self, project: Project) -> dict[str, Any]:
        with self._lock:
            stamp = project.stamp()
            known = self._known.get(project.name)
            if known is None or known[0] != stamp:
                known = self._known[project.name] = stamp, _board(project)
            return known[1]


def _win_rate(project: Project) -> dict[str, Any]:
    """As a Figure: JSON has no NaN."""
    measured = blind.win_rate(project)
    if measured is None:
        return asdict(Figure(None, None, None, 0))
    metric, _ = measured
    low, high = (bound if math.isfinite(bound) else None for bound in (metric.low, metric.high))
    return asdict(Figure(metric.value, low if high is not None else None, high, metric.n))


def _board(project: Project) -> dict[str, Any]:
    settings, items, answers = project.settings, project.items(), project.answers()
    counts = dict.fromkeys(items, 0)
    for answer in answers:
        counts[answer.item] += 1
    ordinary = [number for number, item in items.items() if not item.gold]
    return {
        "project": project.name,
        "kind": settings.kind,
        "people": settings.people,
        "about": {name: value for name, value in (settings.about or {}).items() if name != blind.EQUAL},
        "win_rate": _win_rate(project) if settings.kind == "ab" else None,
        "overrides": list(settings.overrides),
        "items": len(ordinary),
        "gold_items": len(items) - len(ordinary),
        "answers": len(answers),
        "needed": settings.people * len(ordinary),
        "have": sum(min(counts[number], settings.people) for number in ordinary),
        "agreement": asdict(agreement(items, answers, seeds=Seeds(settings.seed).child("agreement"))),
    }
