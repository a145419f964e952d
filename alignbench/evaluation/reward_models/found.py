"""What a measure gives: scores of examples under announced metrics, and metrics that no example has a score of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alignbench.records import Direction, ExampleScore, Metric, MetricSpec

FAMILY = "reward"


@dataclass(frozen=True)
class Found:
    """`metrics` are figures that are no mean over examples: they may have an interval, but no paired test."""

    specs: tuple[MetricSpec, ...] = ()
    scores: tuple[ExampleScore, ...] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def __add__(self, other: Found) -> Found:
        return Found(self.specs + other.specs, self.scores + other.scores, {**self.metrics, **other.metrics})


def name(metric: str) -> str:
    return f"{FAMILY}/{metric}"


def share(metric: str, unit: str) -> MetricSpec:
    """A metric that is a share of right answers."""
    return MetricSpec(name(metric), Direction.HIGHER, unit, share=True)


def found(spec: MetricSpec, rows: Iterable[tuple[str, float, str]]) -> Found:
    """One metric from (example, value, cluster)."""
    scores = tuple(ExampleScore(spec.name, example, value, cluster) for example, value, cluster in rows)
    return Found((spec,), scores)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation, ties at their mean rank; 0 where one of the two is constant: it says nothing about the other."""
    a, b = _ranks(one), _ranks(other)
    spread = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / spread if spread else 0.0


def _ranks(values: Sequence[float]) -> npt.NDArray[Any]:
    from scipy.stats import rankdata

    ranks: npt.NDArray[Any] = rankdata(values)
    ranks -= ranks.mean()
    return ranks
