"""What the plots draw that is not in the table: how training went."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignbench.results.compared.statistics import interval_over_seeds
from alignbench.results.disk.directory import FRONTIER, TRAINING
from alignbench.results.disk.runs import StoredRun

Array = NDArray[np.float64]
LARGEST = 1e12
"""A figure beyond it is no measurement, and no axis holds it beside others."""


@dataclass(frozen=True)
class Curve:
    """One figure along training: the mean over `seeds` and half its 95% interval, NaN for one seed."""

    updates: Array
    mean: Array
    half: Array
    seeds: int

    def thinned(self, points: int) -> Curve:
        """Means over as many windows of neighbouring updates as there are to be points, at most."""
        if len(self.updates) <= points:
            return self
        updates, mean, half = (
            np.array([window.mean() for window in np.array_split(values, points)])
            for values in (self.updates, self.mean, self.half)
        )
        return Curve(updates, mean, half, self.seeds)


def training(runs: Sequence[StoredRun], stage: str = "") -> dict[str, Curve]:
    """The figures that `stage` logged, by default the algorithm's own, over the updates that all of the seeds made."""
    seeds = [found for run in runs if (found := _read(run.path / TRAINING, stage or run.record.identity.algo))]
    names = dict.fromkeys(name for seed in seeds for update in seed.values() for name in update)
    curves = {}
    for name in names:
        have = [seed for seed in seeds if any(name in figures for figures in seed.values())]
        updates = sorted(set.intersection(*(set(seed) for seed in have)))
        values = np.array([[seed[update].get(name, math.nan) for update in updates] for seed in have])
        if not np.isfinite(values).any():
            continue
        half = [interval_over_seeds(list(v)) if len(v) > 1 and np.isfinite(v).all() else math.nan for v in values.T]
        curves[name] = Curve(np.array(updates, float), values.mean(0), np.array(half), len(have))
    return curves


@dataclass(frozen=True)
class Best:
    """The best that any policy could reach at each KL, as a run has estimated it: its mean and 95% interval over prompts."""

    kl: Array
    mean: Array
    low: Array
    high: Array


def best(runs: Iterable[StoredRun], reward: str) -> list[Best]:
    """Of `reward`, proxy or gold: one for each SFT model and reward that the runs started from."""
    found: dict[str, Best] = {}
    for run in runs:
        try:
            text = (run.path / FRONTIER).read_text(encoding="utf-8")
            points = [(point["kl"], point[reward]) for point in json.loads(text)["points"] if reward in point]
            rows = [(kl, p["value"], _or_nan(p["low"]), _or_nan(p["high"])) for kl, p in points]
            if len(rows) > 1:
                found[text] = Best(*np.array(rows, float).T)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it has none, or it is damaged: a plot is drawn without it
    return list(found.values())


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _read(path: Path, stage: str) -> dict[int, dict[str, float]]:
    """Update -> its figures, of one stage."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for line in json_lines(path):
        update = line.get("update")
        if line.get("stage") == stage and isinstance(update, int) and not isinstance(update, bool):
            figures = {key: value for key, value in line.items() if key not in ("stage", "update") and number(value)}
            found[update] |= figures
    return found


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl file; nothing for a file that is not there. A line that is no object is passed over: a
    run that was killed leaves half of its last one."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                yield line
