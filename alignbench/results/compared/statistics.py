"""From scores of examples to a metric with its uncertainty."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction

from alignbench.errors import NonFiniteError, UserError
from alignbench.records import ExampleScore, Metric, MetricSpec

SHARES = frozenset({
    "accuracy", "accuracy_wrong", "agreement", "win_rate", "distinct_2", "unique", "self_bleu", "clip_fraction", "eos_rate", "finished",
    "total_variation", "own_total_variation", "uncovered_mass", "lc_win_rate", "calibration_error",
})  # fmt: skip
POSITIVE = frozenset(
    {"kl", "kl_bound", "kl_to_optimum", "objective_gap", "entropy", "entropy_response", "length", "ead", "seconds"}
)


def limits(metric: str, *, share: bool = False) -> tuple[float, float]:
    """What a metric can be: an interval that says more is cut there where it is shown. By its name; `share`: its record says so."""
    name = metric.rpartition("/")[2].removeprefix("across_").removeprefix("open_")
    if share or name in SHARES:
        return 0.0, 1.0
    return (0.0 if name in POSITIVE else -math.inf), math.inf


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
            metrics[spec.name] = _metric(answered, spec, missing)
    return metrics


def _metric(scores: Sequence[ExampleScore], spec: MetricSpec, missing: int) -> Metric:
    value, stderr, clusters = _mean(scores), clustered_stderr(scores), len(_residuals(scores))
    low, high = math.nan, math.nan
    # Every answer a tie, as of a model that is compared with itself: nothing was drawn, and there is no interval.
    ties = spec.share and all(score.value == 0.5 for score in scores)
    if spec.share and clusters > 1 and not ties:
        low, high = _share_interval(value, stderr**2, clusters - 1, _answers(scores), clusters)
    elif clusters > 1 and not ties:
        low, high = _mean_interval(value, stderr, list(_residuals(scores).values()))
    return Metric(value, stderr, len(scores), spec.direction, missing, clusters, low, high, spec.share)


def clustered_stderr(scores: Sequence[ExampleScore]) -> float:
    """Standard error of the mean of n examples in G clusters (Liang & Zeger 1986; Miller 2024, arXiv 2411.00640):

        sqrt( G / (G - 1) * sum over clusters of (sum over its examples of (x - mean))^2 ) / n

    An example without a cluster is its own; with singletons only it is the usual s / sqrt(n). NaN for one cluster."""
    residuals = _residuals(scores)
    groups = len(residuals)
    if groups < 2:
        return math.nan
    return math.sqrt(groups / (groups - 1) * math.fsum(r**2 for r in residuals.values())) / len(scores)


def _residuals(scores: Sequence[ExampleScore]) -> dict[tuple[str, str], float]:
    """Of each cluster, the sum over its examples of what they have above the mean."""
    mean = _mean(scores)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for score in scores:
        found["cluster" if score.cluster else "example", score.cluster or score.example].append(score.value - mean)
    return {name: math.fsum(r) for name, r in found.items()}


def _answers(scores: Sequence[ExampleScore]) -> int:
    """How many yes-or-no answers a share is of: a score of 3/4 is of four; halves are ties."""
    several = max(Fraction(score.value).limit_denominator(64).denominator for score in scores)
    return len(scores) * (several if several > 2 else 1)


def interval(metrics: Sequence[Metric]) -> tuple[float, float]:
    """The 95% interval of one metric of one configuration: over its seeds, or over the examples of its only one."""
    if all(metric.share and _all_ties(metric) for metric in metrics):
        return math.nan, math.nan
    if len(metrics) == 1:
        return metrics[0].low, metrics[0].high
    values = [metric.value for metric in metrics]
    mean, half = math.fsum(values) / len(values), interval_over_seeds(values)
    if not all(metric.share and metric.clusters for metric in metrics):
        return mean - half, mean + half
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)
    trials, clusters = sum(m.n for m in metrics), sum(m.clusters for m in metrics)
    return _share_interval(mean, variance, len(values) - 1, trials, clusters)


def _mean_interval(mean: float, stderr: float, residuals: Sequence[float]) -> tuple[float, float]:
    """By Student's t with G - 1 degrees of freedom over G clusters, which is too short on the side of the longer tail where scores are
    skewed: each end is the farther of t's and of that of Hall's transformation, which takes the skewness out of the
    t-statistic (Hall 1992, J. R. Statist. Soc. B 54, 221-228): h(T) = T + a T^2 + a^2 T^3 / 3 + a / 2 with a = skewness / (3 sqrt(G)).
    """
    groups, t = len(residuals), _student_975(len(residuals) - 1)
    squares = math.fsum(r**2 for r in residuals) / groups
    if squares == 0 or groups < 3:
        return mean - t * stderr, mean + t * stderr
    unbiased = math.sqrt(groups * (groups - 1)) / (groups - 2)
    skewness = unbiased * math.fsum(r**3 for r in residuals) / groups / squares**1.5
    a = skewness / (3 * math.sqrt(groups))

    def back(x: float) -> float:
        # h(T) = ((1 + a T)^3 - 1) / (3 a) + a / 2, solved for T
        return float((math.cbrt(1 + 3 * a * (x - a / 2)) - 1) / a) if abs(a) > 1e-6 else x

    return mean - stderr * max(t, back(t)), mean + stderr * max(t, -back(-t))


def _all_ties(metric: Metric) -> bool:
    """Whether the share is known and was not drawn. A record from before `_metric` knew it has an interval all the same."""
    return 0 < metric.value < 1 and metric.stderr == 0 and (math.isnan(metric.low) or metric.value == 0.5)


def _share_interval(share: float, variance: float, degrees: int, trials: int, clusters: int) -> tuple[float, float]:
    """Clopper and Pearson's for a share of clustered examples (Korn & Graubard 1998, Survey Methodology 24, 193-201).

    It takes the number of independent yes-or-no answers that would have this variance, `share (1 - share) / variance + 1`
    (the number of clusters, where each is one answer); less, where its few `degrees` of freedom leave the variance uncertain; and
    never more than were asked. Where all clusters agree they have no variance, and each counts as one answer: none of 8 is 0 to
    .37."""
    from scipy.special import betaincinv

    share = min(max(share, 0.0), 1.0)
    size = float(clusters)
    if variance > 1e-12 and 0 < share < 1:
        uncertain = (_student_975(max(trials - 1, 1)) / _student_975(degrees)) ** 2
        size = min((share * (1 - share) / variance + 1) * uncertain, float(trials))
    yes, no = share * size, (1 - share) * size
    low = float(betaincinv(yes, no + 1, 0.025)) if yes > 0 else 0.0
    high = float(betaincinv(yes + 1, no, 0.975)) if no > 0 else 1.0
    return low, high


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
