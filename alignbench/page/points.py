"""What a run was and said along its training, as a page that watches it shows it; and how often it is to be looked at."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignbench.app.config import RunConfig
from alignbench.records import Consumes
from alignbench.results.compared.training_points import GENERATIONS, LINES
from alignbench.results.shown.generations import note, visible
from alignbench.results.shown.plots.data import json_lines, number

POINTS = 10
"""Of a run that is watched, about."""
QUESTIONS = 10
"""Asked at each: few, for nobody waits for a point."""
FAMILY = "optimization"
"""Reward and KL, and nothing else that would take time."""
FIGURES = {"gold": "optimization/gold_reward", "proxy": "optimization/proxy_reward", "kl": "optimization/kl"}


def looked_at(config: RunConfig, rows: int = 0) -> list[str]:
    """Overrides that make a run evaluate itself some ten times while it learns, unless its settings say how often. They change
    nothing of what it learns or measures at its end. `rows`: examples, where it is trained for passes over them; a run whose updates
    nobody knows yet is not looked at, for one evaluation at every update may take longer than all of its training."""
    algo = config.algo.config
    if config.eval.every or algo.consumes in (Consumes.NOTHING, Consumes.DEMONSTRATIONS):
        return []
    updates = algo.updates if algo.updates > 0 else round(algo.passes * rows / algo.batch_size)
    if not updates:
        return []
    families = f"[{FAMILY}]" if FAMILY in config.eval.families else "[]"
    return [
        f"eval.every={max(math.ceil(updates / POINTS), 1)}",
        f"eval.points.questions={QUESTIONS}",
        f"eval.points.samples={min(2, config.eval.samples)}",
        f"eval.points.families={families}",
    ]


def points(run: Path) -> list[dict[str, Any]]:
    """One for each: the update, its figures, and the first response to each of a few prompts."""
    lines = list(json_lines(run / LINES))  # first, for a point's line is written after what was said at it
    said: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in json_lines(run / GENERATIONS):
        update = line.get("update")
        if isinstance(update, int) and line.get("index") == 0:
            said[update].append(_response(line))
    return [
        {"update": line["update"], **_figures(line.get("metrics")), "said": said[line["update"]]}
        for line in lines
        if isinstance(line.get("update"), int)
    ]


def _figures(metrics: Any) -> dict[str, float]:
    found = metrics if isinstance(metrics, Mapping) else {}
    values: dict[str, Any] = {n: metric.get("value") for n, metric in found.items() if isinstance(metric, Mapping)}
    return {short: values[name] for short, name in FIGURES.items() if number(values.get(name))}


def _response(line: Mapping[str, Any]) -> dict[str, Any]:
    messages = line.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    asked = last.get("content") if isinstance(last, Mapping) else None
    return {
        "prompt": str(line.get("prompt")),
        "asked": visible(str(asked if asked is not None else line.get("prompt"))),
        "opinion": line["opinion"] if line.get("opinion") in ("right", "wrong") else "",
        "text": visible(str(line.get("response"))),
        "note": note(line),
    }
