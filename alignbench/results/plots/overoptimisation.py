"""The curves of Gao et al. 2022 (arXiv 2210.10760, equations 1 and 2), fitted: gold reward gained at d = sqrt(KL)."""

from __future__ import annotations

import enum
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import stdtrit

from alignbench.results.plots.data import Array

FEWEST = 4
"""Rows for two coefficients: with fewer than two degrees of freedom an interval says nothing."""


class Form(enum.Enum):
    BEST_OF_N = "R = d (α − β d)"
    RL = "R = d (α − β log d)"


@dataclass(frozen=True)
class Fit:
    """`covariance` of (alpha, beta), from the residuals; `t`: Student's t of a 95% interval for their degrees of freedom."""

    form: Form
    alpha: float
    beta: float
    covariance: Array
    t: float

    def value(self, d: Array) -> Array:
        return np.asarray(_basis(self.form, d) @ np.array([self.alpha, self.beta]))

    def half_interval(self, d: Array) -> Array:
        """Of the fitted curve at d. The curve is linear in its coefficients: nothing is approximated."""
        basis = _basis(self.form, d)
        return np.asarray(self.t * np.sqrt(np.einsum("ni,ij,nj->n", basis, self.covariance, basis)))

    def text(self) -> str:
        alpha, beta = self.t * np.sqrt(np.diag(self.covariance))
        return f"{self.form.value}, α = {_with_interval(self.alpha, alpha)}, β = {_with_interval(self.beta, beta)}"


def fit(form: Form, d: Sequence[float], gained: Sequence[float]) -> Fit | str:
    """By least squares; or why not. Points at d <= 0 say nothing about either coefficient."""
    points = [(x, y) for x, y in zip(d, gained, strict=True) if x > 0 and math.isfinite(y)]
    if len({x for x, _ in points}) < FEWEST:
        return f"fewer than {FEWEST} rows at different KL"
    x, y = np.array(points).T
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)
        try:
            (alpha, beta), covariance = curve_fit(
                lambda x, a, b: _basis(form, x) @ np.array([a, b]), x, y, p0=(1.0, 0.0)
            )
        except (OptimizeWarning, RuntimeError):
            return "the rows do not determine both coefficients"
    return Fit(form, float(alpha), float(beta), covariance, float(stdtrit(len(points) - 2, 0.975)))


def _with_interval(value: float, half: float) -> str:
    """Two digits of the interval, and as many decimals of the value."""
    decimals = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
    return f"{value:.{min(decimals, 6)}f} ± {half:.{min(decimals, 6)}f}"


def _basis(form: Form, d: Array) -> Array:
    """What alpha and beta are multiplied with; d log d is 0 at 0."""
    if form is Form.BEST_OF_N:
        return np.stack([d, -d * d], axis=-1)
    return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], axis=-1)
