"""From scores of examples to a metric with its uncertainty."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from alignbench.errors import NonFiniteError, UserError
from alignbench.records import ExampleScore, Metric, MetricSpec

NORMAL_95 = 1.959963984540054


def summarise(scores: Sequence[ExampleScore], specs: Iterable[MetricSpec]) -> dict[str, Metric]:
    """The mean of each metric over its examples, in the order of `specs`; a metric without scores is left out.

    `stderr` is cluster-robust, see `clustered_stderr`. NaN counts as missing. Refuses a score that is infinite, that no spec
    announces or that stands twice: each would make a table quietly wrong."""
    announced = list(specs)
    by_metric: dict[str, list[ExampleScore]] = {spec.name: [] for spec in announced}
    if len(by_metric) < len(announced):
        twice = sorted({s.name for s in announced if sum(o.name == s.name for o in announced) > 1})
        raise UserError(
            f"Two evaluations announce the same metric: {', '.join(twice)}. Leave one out of eval.families."
        )
    seen: set[tuple[str, str]] = set()
    for score in scores:
        where = f"{score.metric} of example {score.example!r}"
        if score.metric not in by_metric:
            raise UserError(f"An evaluation gave {where}, a metric that its specs() does not list.")
        if (score.metric, score.example) in seen:
            raise UserError(f"An evaluation scored {where} twice; an example has one score per metric.")
        if math.isinf(score.value):
            raise NonFiniteError(f"{where} is {score.value}.")
        seen.add((score.metric, score.example))
        by_metric[score.metric].append(score)
    metrics = {}
    for spec in announced:
        answered = [score for score in by_metric[spec.name] if not math.isnan(score.value)]
        missing = len(by_metric[spec.name]) - len(answered)
        if answered:
            metrics[spec.name] = Metric(
                _mean(answered), clustered_stderr(answered), len(answered), spec.direction, missing
            )
    return metrics


def clustered_stderr(scores: Sequence[ExampleScore]) -> float:
    """Standard error of the mean of n examples in G clusters (Liang & Zeger 1986; Miller 2024, arXiv 2411.00640):

        sqrt( G / (G - 1) * sum over clusters of (sum over its examples of (x - mean))^2 ) / n

    An example without a cluster is its own; with singletons only it is the usual s / sqrt(n). NaN for one cluster."""
    mean = _mean(scores)
    residuals: dict[tuple[str, str], list[float]] = defaultdict(list)
    for score in scores:
        residuals["cluster" if score.cluster else "example", score.cluster or score.example].append(score.value - mean)
    groups = len(residuals)
    if groups < 2:
        return math.nan
    squares = math.fsum(math.fsum(r) ** 2 for r in residuals.values())
    return math.sqrt(groups / (groups - 1) * squares) / len(scores)


def interval_over_seeds(values: Sequence[float]) -> float:
    """Half the 95% confidence interval of the mean of one value per seed, by Student's t. Needs at least two seeds."""
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return _student_975(n - 1) * deviation / math.sqrt(n)


@functools.cache
def _student_975(degrees: int) -> float:
    from scipy.special import stdtrit  # a third of a second to import, and only tables over seeds need it

    return float(stdtrit(degrees, 0.975))


def _mean(scores: Sequence[ExampleScore]) -> float:
    return math.fsum(s.value for s in scores) / len(scores)
