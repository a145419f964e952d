"""What differs between rows of the table, by how much, and how sure that is.

Seeds and evaluation prompts are both samples of what a reader cares about: another training run, other prompts. The spread of a
difference is that of a hierarchical bootstrap, which draws seeds and, inside them, examples (whole clusters of those that belong
together), the same in every run because runs answer the same prompts (Davison & Hinkley 1997, section 3.8; Owen 2007, arXiv
0712.1111):

    spread^2 = V_seeds + max(V_examples - V_both, 0)

V_seeds is the variance of a mean over seeds, V_examples the clustered variance of a mean over examples of what the seeds
average to, and V_both the noise of single seeds on single clusters, which is in either and counts once (two-way clustering, Cameron,
Gelbach & Miller 2011; V_both as the analysis of variance has it, for seeds are few). For a mean nothing has to be drawn: this
is the limit of infinitely many draws, the ideal bootstrap (Efron & Tibshirani 1993, chapter 6).

What makes the percentiles of a bootstrap of three to ten seeds call noise a difference is not its spread but its tails. Here each
part has its own quantile of Student's t, with Welch's degrees of freedom over seeds and G - 1 over G clusters, and the two
half-intervals add in quadrature (Howe 1974; Zou & Donner 2008). A p-value is the level at which the interval just
holds 0. Satterthwaite's single t for the sum is too sure at three seeds: where they happen to agree it takes their spread for
small, and for well known. Where they agree better than the noise of their examples lets them, the interval is the one that
examples alone leave: to train more seeds makes no question more certain.

`benchmarks/aa_test.py` measures how often it calls noise a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alignbench.results.compared.comparable import measured_alike
from alignbench.results.compared.examples import Examples, Scores, read_examples
from alignbench.results.compared.primary import primary_of
from alignbench.results.compared.table import MOST_NAMED, Row, Table, baseline_row
from alignbench.results.disk.runs import StoredRun

if TYPE_CHECKING:
    from alignbench.results.compared.examples import Floats, Integers

LEVEL = 0.05
SMALLEST = 1e-15
"""P-values below it are 0."""
POWER = 0.8
MOST_SEEDS = 1000
EQUAL = 1e-9
"""A difference that is smaller than this part of the two means is rounding."""


@dataclass(frozen=True)
class Difference:
    """`value` = the row's mean less the baseline's, with its 95% interval. Of a `primary` metric `p_holm` is corrected for all
    `tests` such differences of one table (Holm 1979), shown or not, and `significant` says whether it is below 5%. Others are
    exploratory: NaN, never significant. The interval is NaN, and the p-value 1, where no score varies.

    `effect_size` is Cohen's d_av: `value` in standard deviations of a row's scores over examples, the root mean square of
    the two rows' (Lakens 2013); NaN where a row lies between two runs, or nothing spreads. `over_seeds`: whether the interval covers training noise; else it is over examples only.
    `seeds` of each row were compared (of the row that has fewer), on `examples` that all of the runs have. `seeds_needed`: see
    `Estimate.seeds_needed`, and `detectable` what is said there, of primary metrics."""

    row: tuple[str, ...]
    baseline: tuple[str, ...]
    metric: str
    value: float
    low: float
    high: float
    p_value: float
    p_holm: float
    effect_size: float
    significant: bool
    over_seeds: bool
    seeds: int
    examples: int
    primary: bool = True
    seeds_needed: float = math.nan
    detectable: float = math.nan
    tests: int = 0


@dataclass(frozen=True)
class Estimate:
    """A difference of means with the variance that seeds give it and that prompts add, and the degrees of freedom of each.
    `by_examples` is the variance that examples alone give it: prompts, and the noise of single seeds on them."""

    value: float
    by_seeds: float
    seed_degrees: float
    by_prompts: float
    by_examples: float
    prompt_degrees: float
    over_seeds: bool

    def half_interval(self, level: float = LEVEL) -> float:
        """Of the interval that misses the truth in `level` of cases."""
        from scipy.special import stdtrit

        return self._widest(lambda degrees: -float(stdtrit(degrees, level / 2)))

    @property
    def p_value(self) -> float:
        """The level at which the interval just holds 0."""
        from scipy.optimize import brentq

        if self.value == 0:
            return 1.0
        if self.half_interval(SMALLEST) < abs(self.value):
            return 0.0
        root = brentq(lambda log: self.half_interval(math.exp(log)) - abs(self.value), math.log(SMALLEST), 0)
        return math.exp(root)

    def seeds_needed(self, seeds: int, tests: int) -> float:
        """How many seeds of each row would find a true difference as large as `value` with 80% power, where `seeds` found this one
        and it is one of `tests`. A guess from the spread of few seeds; infinite where the prompts alone hide the difference, NaN where
        seeds tell nothing of their spread."""
        import numpy as np

        if not self.over_seeds or not self.by_seeds or not self.value:
            return math.nan
        more = np.arange(2, MOST_SEEDS + 1)
        of_seeds = self.by_seeds * seeds / more * _reach(self.seed_degrees * (more - 1) / (seeds - 1), tests) ** 2
        reach = _reach(self.prompt_degrees, tests) ** 2 if self.by_examples else 0.0
        alone = (self.by_prompts + (self.by_examples - self.by_prompts) * seeds / more) * reach
        enough = np.flatnonzero(np.maximum(of_seeds + self.by_prompts * reach, alone) <= self.value**2)
        return float(more[enough[0]]) if len(enough) else math.inf

    def detectable(self, tests: int) -> float:
        """The smallest true difference that as many seeds and prompts find with 80% power, where it is one of `tests`. A guess from the
        spread that was seen, as `seeds_needed` is; what was found plays no part in it. NaN where nothing varied."""
        if not self.by_seeds and not self.by_examples:
            return math.nan
        return self._widest(lambda degrees: float(_reach(degrees, tests)))

    def _widest(self, errors: Callable[[float], float]) -> float:
        """So many standard errors: of seeds and prompts in quadrature, or of the examples alone where these say more."""
        together = ((self.by_seeds, self.seed_degrees), (self.by_prompts, self.prompt_degrees))
        alone = ((self.by_examples, self.prompt_degrees),)
        return math.sqrt(max(sum(v * errors(degrees) ** 2 for v, degrees in parts if v) for parts in (together, alone)))


def differences(
    table: Table, baseline: str = "", examples: Examples | None = None, *, primary: Sequence[str] | None = None
) -> tuple[Difference, ...]:
    """Each row against `baseline`, the label of a row; by default against the SFT model that the row started from. `primary`
    are the metrics that are tested; by default those of the runs (`primary_of`).

    Metrics that one of the two lacks or has in part, and rewards of different reward models, have none. A quantity that stands in
    the table under two names is compared once, under the first."""
    found = ((row, baseline_row(row, table, baseline)) for row in table.rows)
    pairs = [(row, other) for row, other in found if other is not None and other is not row]
    if not pairs:
        return ()
    examples = examples or read_examples(run for row in table.rows for run in row.runs)
    tested = primary_of(table).metrics if primary is None else primary
    return between(pairs, table, examples, tested, [*tested, *table.metrics])


def between(
    pairs: Sequence[tuple[Row, Row]], table: Table, examples: Examples, tested: Sequence[str], metrics: Sequence[str]
) -> tuple[Difference, ...]:
    """The first of each pair against the second in each of `metrics`; those of `tested` are corrected for one another, over all
    pairs."""
    metrics = _once([name for name in metrics if name in table.metrics], table, examples) if pairs else []
    found = []
    for row, other in pairs:
        for metric in metrics:
            known = metric in row.cells and metric in other.cells and metric in examples.scores
            whole = known and not (row.cells[metric].missing or other.cells[metric].missing)
            if whole and measured_alike(metric, row, other):
                found += _difference(row, other, metric, examples.scores[metric])
    tests = [d.p_value for d, _ in found if d.metric in tested]
    corrected = iter(holm(tests))
    return tuple(
        _judged(d, next(corrected), estimated, len(tests)) if d.metric in tested else _explored(d)
        for d, estimated in found
    )


def on_shared_seeds(table: Table, compared: Sequence[Difference]) -> list[str]:
    """Of rows that are not compared on all of their seeds: a difference that is not that of their two cells."""
    rows = {row.label: row for row in table.rows}
    said = []
    for pair in dict.fromkeys((d.row, d.baseline) for d in compared):
        one, other = (rows[label] for label in pair)
        shared = len({*one.seeds} & {*other.seeds})
        more_than_shared = any(len(row.seeds) > shared for row in (one, other))
        if more_than_shared and shared == min(len(one.seeds), len(other.seeds)):
            said.append(f"{' '.join(one.label)} and {' '.join(other.label)} on {shared}")
    if not said:
        return []
    more = f" and {len(said) - MOST_NAMED} more pairs" if len(said) > MOST_NAMED else ""
    return [f"Differences are of the seeds that both rows have: {', '.join(said[:MOST_NAMED])}{more}."]


def _judged(difference: Difference, p_holm: float, found: Estimate, tests: int) -> Difference:
    return replace(
        difference,
        p_holm=p_holm,
        significant=p_holm < LEVEL,
        seeds_needed=found.seeds_needed(difference.seeds, tests),
        detectable=found.detectable(tests),
        tests=tests,
    )


def _reach(degrees: Any, tests: int) -> Any:
    """How many standard errors a true difference must have to be found with 80% power at LEVEL, corrected for so many tests: the
    noncentrality of Student's t."""
    from scipy.special import nctdtrinc, stdtrit

    return nctdtrinc(degrees, 1 - POWER, stdtrit(degrees, 1 - LEVEL / tests / 2))


def _explored(difference: Difference) -> Difference:
    return replace(difference, p_holm=math.nan, significant=False, primary=False)


def _once(metrics: Sequence[str], table: Table, examples: Examples) -> list[str]:
    """Each of `metrics` once, less those whose cells and scores are those of an earlier one in every row."""
    kept: dict[str, None] = {}
    for name in dict.fromkeys(metrics):
        if not any(_same(name, other, table, examples) for other in kept):
            kept[name] = None
    return [name for name in table.metrics if name in kept]


def _same(one: str, other: str, table: Table, examples: Examples) -> bool:
    import numpy as np

    if any(row.cells.get(one) != row.cells.get(other) for row in table.rows):
        return False
    a, b = examples.scores.get(one), examples.scores.get(other)
    if not (a and b and a.rows == b.rows) or np.nanmin(a.values) == np.nanmax(a.values):
        return False  # two quantities may both be 0 everywhere
    return bool(np.array_equal(a.values, b.values, equal_nan=True))


def _difference(row: Row, baseline: Row, metric: str, scores: Scores) -> list[tuple[Difference, Estimate]]:
    import numpy as np

    a, b, paired = _matched(scores, row.runs, baseline.runs)
    if not a or not b:
        return []
    if row.baseline and baseline.baseline and np.array_equal(scores.values[a], scores.values[b], equal_nan=True):
        return []  # one SFT model, measured by two kinds of runs
    found = estimate(scores.values[a], scores.values[b], scores.clusters, paired=paired)
    if found is None:
        return []
    # Where neither seeds nor prompts vary (all right against all wrong, on few of both), nothing tells how sure that is.
    half, p = (found.half_interval(), found.p_value) if found.by_seeds or found.by_examples else (math.nan, 1.0)
    mixed = any(run.path in scores.mixed for run in (*row.runs, *baseline.runs))
    deviation = 0.0 if mixed else math.sqrt(np.mean([np.nanvar(scores.values[side], axis=1).mean() for side in (a, b)]))
    difference = Difference(
        row.label,
        baseline.label,
        metric,
        found.value,
        found.value - half,
        found.value + half,
        p_value=p,
        p_holm=p,
        effect_size=found.value / deviation if deviation else math.nan,
        significant=p < LEVEL,
        over_seeds=found.over_seeds,
        seeds=min(len(a), len(b)),
        examples=int((~np.isnan(scores.values[[*a, *b]])).all(0).sum()),
    )
    return [(difference, found)]


def _matched(scores: Scores, one: Sequence[StoredRun], other: Sequence[StoredRun]) -> tuple[list[int], list[int], bool]:
    """Which runs to compare, and whether run i of one side belongs to run i of the other: the same seed, hence the same SFT
    model. Where each side has seeds of its own all are compared, unpaired: to drop those would cost more than pairing gains."""
    a, b = ({run.record.identity.seed: i for run in side for i in scores.of([run])} for side in (one, other))
    shared = sorted(a.keys() & b.keys())
    if shared and len(shared) == min(len(a), len(b)):
        return [a[seed] for seed in shared], [b[seed] for seed in shared], True
    return list(a.values()), list(b.values()), False


def estimate(a: Floats, b: Floats, clusters: Integers, *, paired: bool) -> Estimate | None:
    """The difference of the means of `a` and `b` [seed, example] with its spread, as the head of this file has it; None where
    one seed and one cluster leave it unknown.

    `paired`: row i of both is one seed. Examples are always paired: columns are the same prompts, NaN where one is missing."""
    import numpy as np

    mean_a, mean_b = np.nanmean(a, axis=1), np.nanmean(b, axis=1)
    noise_a, noise_b = residuals(a, clusters), residuals(b, clusters)
    sides = [(mean_a - mean_b, noise_a - noise_b)] if paired else [(mean_a, noise_a), (-mean_b, -noise_b)]
    value = float(sum(means.mean() for means, _ in sides))
    rounding = EQUAL * max(abs(mean_a).max(), abs(mean_b).max())
    value = 0.0 if abs(value) <= rounding else value
    groups = len(np.unique(clusters[~np.isnan(a).all(0) | ~np.isnan(b).all(0)]))
    over_seeds = all(len(means) > 1 for means, _ in sides)
    if groups < 2 and not over_seeds:
        return None

    correction = groups / (groups - 1) if groups > 1 else 0.0  # a single cluster says nothing about prompts
    by_examples = correction * float((sum(noise.mean(0) for _, noise in sides) ** 2).sum())
    if not over_seeds:
        return Estimate(value, 0.0, math.nan, by_examples, by_examples, groups - 1, over_seeds)
    parts = [(float(means.var(ddof=1)) / len(means), len(means) - 1) for means, _ in sides]
    by_seeds = sum(v for v, _ in parts)
    if by_seeds <= rounding**2:  # seeds that agree to the last digit say nothing about the noise of their examples
        return Estimate(value, 0.0, math.nan, by_examples, by_examples, groups - 1, over_seeds)
    seed_degrees = by_seeds**2 / sum(v**2 / degrees for v, degrees in parts)
    by_both = correction * sum(float(noise.var(axis=0, ddof=1).sum()) / len(noise) for _, noise in sides)
    by_prompts = max(by_examples - by_both, 0.0)
    return Estimate(value, by_seeds, seed_degrees, by_prompts, by_examples, groups - 1, over_seeds)


def residuals(values: Floats, clusters: Integers) -> Floats:
    """What each cluster moves each seed's mean by, [seed, cluster]: the sum of (x - mean) over its examples, by n."""
    import numpy as np

    centred = np.nan_to_num(values - np.nanmean(values, axis=1, keepdims=True))
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    sums = np.add.reduceat(centred[:, order], starts, axis=1)
    found: Floats = sums / (~np.isnan(values)).sum(1, keepdims=True)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the chance of one false alarm among all stays below the level."""
    import numpy as np

    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(p) for p in corrected]
