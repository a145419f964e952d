"""Over-optimisation (Gao et al. 2022, arXiv 2210.10760): gold reward against d = sqrt(KL) from the SFT model. The paper's two curves
fitted to rows of a table or to the points of one training, the peak, and whether training went past it."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from alignbench.errors import UserError
from alignbench.results.compared.paired import LEVEL, Estimate, estimate, holm, residuals
from alignbench.results.compared.table import PAST_PEAK, Row, Table
from alignbench.results.compared.training_points import GOLDS, Trajectory, has_points, trajectory

Array = NDArray[np.float64]
FEWEST = 4
"""Rows or points for two coefficients: with fewer a curve through them says nothing of how well it describes them."""


class Form(enum.Enum):
    BEST_OF_N = "R = d (α − β d)"
    RL = "R = d (α − β log d)"


@dataclass(frozen=True)
class Fit:
    """`covariance` of (alpha, beta); `t`: Student's t of a 95% interval for its degrees of freedom. `residual`: root mean square of
    what the curve leaves of the rewards."""

    form: Form
    alpha: float
    beta: float
    covariance: Array
    t: float
    residual: float

    def value(self, d: Array) -> Array:
        return np.asarray(_basis(self.form, d) @ np.array([self.alpha, self.beta]))

    def half_interval(self, d: Array) -> Array:
        """Of the fitted curve at d. The curve is linear in its coefficients: nothing is approximated."""
        basis = _basis(self.form, d)
        return np.asarray(self.t * np.sqrt(np.einsum("ni,ij,nj->n", basis, self.covariance, basis)))

    def peak(self) -> float:
        """The d at which the curve is highest; infinite where it rises in the end for ever, 0 where it falls from the start."""
        if self.beta < 0 or (self.beta == 0 and self.alpha > 0):
            return math.inf
        return self.level() if self.beta else 0.0

    def level(self) -> float:
        """The d > 0 at which the curve neither rises nor falls, 0 where there is none: its peak, or with beta < 0 its lowest point."""
        if self.beta == 0:
            return 0.0
        if self.form is Form.BEST_OF_N:
            return max(self.alpha / (2 * self.beta), 0.0)
        return math.exp(min(self.alpha / self.beta - 1, 700.0))

    def text(self) -> str:
        alpha, beta = self.t * np.sqrt(np.diag(self.covariance))
        return f"{self.form.value}, α = {with_interval(self.alpha, alpha)}, β = {with_interval(self.beta, beta)}"


def fit(form: Form, d: Sequence[float], gained: Sequence[float]) -> Fit | str:
    """Rows, by least squares, the covariance from their residuals; or why not. Those at d <= 0 say nothing about a coefficient."""
    known = [(x, y) for x, y in zip(d, gained, strict=True) if x > 0 and math.isfinite(y)]
    if len({x for x, _ in known}) < FEWEST:
        return f"fewer than {FEWEST} rows at different KL"
    x, y = np.array(known).T
    basis = _basis(form, x)
    if not _determined(basis):
        return "the rows do not determine both coefficients"
    coefficients = np.linalg.lstsq(basis, y, rcond=None)[0]
    left = y - basis @ coefficients
    covariance = np.linalg.inv(basis.T @ basis) * (left @ left) / (len(y) - 2)
    t = float(stdtrit(len(y) - 2, 0.975))
    return Fit(form, float(coefficients[0]), float(coefficients[1]), covariance, t, float(np.sqrt(np.mean(left**2))))


def fit_points(form: Form, along: Trajectory) -> Fit | str:
    """The points of one training, by weighted least squares; or why not.

    Gold rewards count from those of the first point, the SFT model, on the same prompts; a point weighs 1 / stderr^2 of that. Points
    share their prompts and the same chances, so their errors go together: the covariance is that of the jackknife, which leaves out
    one question (cluster) after the other and redoes all of it, the KL included (Efron & Tibshirani 1993, chapter 11). It is
    uncertainty over prompts; another training would take another path."""
    if along.gold is None:
        return "no gold reward"
    gained = along.gold - along.gold[0]
    spread = residuals(gained, along.clusters)
    groups = spread.shape[1]
    weights, d = (spread**2).sum(1), distances(along.kl)
    used = (weights > 0) & (d > 0)
    if groups < 3:
        return "fewer than 3 questions"
    if len(set(d[used])) < FEWEST:
        return f"fewer than {FEWEST} points at different KL"
    if not _determined(_basis(form, d[used])):
        return "the points do not determine both coefficients"
    weights, gained, kl = 1 / weights[used], gained[used], along.kl[used]
    alpha, beta = whole = _weighted(form, d[used], gained.mean(1), weights)
    d_without, gained_without = (_without_each(v, along.clusters) for v in (kl, gained))
    apart = _weighted(form, np.sqrt(np.maximum(d_without, 0.0)), gained_without, weights)
    apart = apart - apart.mean(0)
    covariance = (groups - 1) / groups * apart.T @ apart
    left = gained.mean(1) - _basis(form, d[used]) @ whole
    t = float(stdtrit(groups - 1, 0.975))
    return Fit(form, float(alpha), float(beta), covariance, t, float(np.sqrt(np.mean(left**2))))


def _without_each(values: Array, clusters: NDArray[np.intp]) -> Array:
    """[cluster, point]: the means [point] over all examples but those of one cluster."""
    sums = np.stack([np.bincount(clusters, row) for row in values], axis=1)
    return np.asarray((sums.sum(0) - sums) / (len(clusters) - np.bincount(clusters))[:, None])


def _weighted(form: Form, d: Array, gained: Array, weights: Array) -> Array:
    """Coefficients [..., 2] by weighted least squares over the last axis of `d` and `gained`."""
    basis = _basis(form, d) * np.sqrt(weights)[:, None]
    return np.asarray(np.linalg.pinv(basis) @ (gained * np.sqrt(weights))[..., None])[..., 0]


def _determined(basis: Array) -> bool:
    return bool(np.linalg.cond(basis) < 1e8)


def _basis(form: Form, d: Array) -> Array:
    """What alpha and beta are multiplied with; d log d is 0 at 0."""
    if form is Form.BEST_OF_N:
        return np.stack([d, -d * d], axis=-1)
    return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], axis=-1)


def distances(kl: Array) -> Array:
    """sqrt(KL) of each point. An estimated KL near zero may be negative."""
    return np.asarray(np.sqrt(np.maximum(kl.mean(1), 0.0)))


def half_intervals(values: Array, clusters: NDArray[np.intp]) -> Array:
    """Half the 95% interval of the mean of each point, over clusters of prompts."""
    spread = residuals(values, clusters)
    groups = spread.shape[1]
    if groups < 2:
        return np.full(len(values), math.nan)
    return np.asarray(stdtrit(groups - 1, 0.975) * np.sqrt(groups / (groups - 1) * (spread**2).sum(1)))


@dataclass(frozen=True)
class Decline:
    """The highest point of the gold reward and what the last one has lost since, on the same prompts with the same chances.

    The highest of many points is so by chance too: `p_value` is corrected for the number of points that it was chosen from,
    and `fall`, which is not, has no interval to show."""

    peak: int
    fall: Estimate
    p_value: float

    @property
    def significant(self) -> bool:
        return self.p_value < LEVEL and self.fall.value > 0


def decline(along: Trajectory) -> Decline | None:
    """None where there is no gold reward, no second point, or a single question."""
    if along.gold is None or len(along.gold) < 2:
        return None
    peak = int(along.gold.mean(1).argmax())
    fall = estimate(along.gold[[peak]], along.gold[[-1]], along.clusters, paired=True)
    return Decline(peak, fall, min(1.0, fall.p_value * (len(along.gold) - 1))) if fall else None


@dataclass(frozen=True)
class Course:
    """The way of one run: `decline.p_value` is corrected for all runs of the table too (Holm)."""

    row: Row
    along: Trajectory
    decline: Decline | None


def courses(table: Table) -> tuple[list[Course], list[str]]:
    """Those of the runs that have points, and one line on each whose points cannot be read."""
    found, problems = [], []
    for row in table.rows:
        for run in row.runs:
            if has_points(run):
                try:
                    along = trajectory(run)
                    found.append(Course(row, along, decline(along)))
                except UserError as error:
                    problems.append(f"{run.path}: {error}; its course is left out.")
    tested = [course.decline for course in found if course.decline]
    corrected = iter(holm([each.p_value for each in tested]) if tested else ())
    return [replace(c, decline=c.decline and replace(c.decline, p_value=next(corrected))) for c in found], problems


def warned(table: Table) -> Table:
    """With a mark and a note where the gold reward of a run ended below its own peak."""
    found, problems = courses(table)
    past = [course for course in found if course.decline and course.decline.significant]
    labels = {course.row.label for course in past}
    rows = [
        replace(row, cells={name: replace(cell, past_peak=name in GOLDS) for name, cell in row.cells.items()})
        if row.label in labels
        else row
        for row in table.rows
    ]
    tested = sum(course.decline is not None for course in found)
    corrected = f"{PAST_PEAK} p is corrected for the points that a peak was chosen from and for the {tested} runs that have points."
    said = [*map(_warning, past), *([corrected] if past else []), *problems]
    return replace(table, rows=tuple(rows), notes=(*table.notes, *said))


def _warning(course: Course) -> str:
    assert course.decline is not None
    d, along, last = distances(course.along.kl), course.along, len(course.along.updates) - 1
    at = [f"update {along.updates[i]} (√KL {d[i]:.2f})" for i in (course.decline.peak, last)]
    return (
        f"{PAST_PEAK} WARNING, over-optimised: {along.gold_name} of {' '.join(course.row.label)}, seed "
        f"{along.run.record.identity.seed}, fell by {drop(course.decline)} from its peak at {at[0]} to {at[1]}, "
        f"{p_text(course.decline.p_value)}."
    )


def drop(decline: Decline) -> str:
    """Without an interval: that of a point which was picked because it was highest holds the truth too seldom."""
    return f"{decline.fall.value:.3f}"


def p_text(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def with_interval(value: float, half: float) -> str:
    """Two digits of the interval, and as many decimals of the value."""
    if not math.isfinite(half):
        return f"{value:.3f}"
    decimals: Any = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
    return f"{value:.{min(decimals, 6)}f} ± {half:.{min(decimals, 6)}f}"
