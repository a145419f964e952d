"""What a measure gives: scores of examples under announced metrics, and metrics that no example has a score of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from alignbench.records import Direction, ExampleScore, Metric, MetricSpec

FAMILY = "reward"
GROUPS = 100
"""Parts that the jackknife leaves out one at a time; fewer where there are fewer clusters."""


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


def jackknifed(
    spec: MetricSpec,
    clusters: Sequence[str],
    statistic: Callable[[npt.NDArray[np.intp]], float],
) -> Found:
    """A statistic of rows (given their numbers) with the interval of the delete-a-group jackknife over clusters (Kott 2001, J. of
    Official Statistics 17, 521-526): sqrt((G - 1) / G * sum of (theta without group - their mean)^2), by Student's t."""
    from scipy.special import stdtrit

    rows = np.arange(len(clusters))
    value = statistic(rows)
    if not len(rows) or math.isnan(value):
        return Found()
    numbers = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    groups = min(GROUPS, len(numbers))
    metric = Metric(value, math.nan, len(rows), spec.direction, clusters=len(numbers))
    if groups > 2:
        group = np.array([numbers[cluster] % groups for cluster in clusters])
        without = np.array([statistic(rows[group != g]) for g in range(groups)])
        stderr = math.sqrt((groups - 1) / groups * float(((without - without.mean()) ** 2).sum()))
        half = stderr * float(stdtrit(groups - 1, 0.975))
        metric = replace(metric, stderr=stderr, low=value - half, high=value + half)
    return Found(metrics={spec.name: metric})


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
