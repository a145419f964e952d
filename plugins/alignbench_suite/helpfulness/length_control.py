"""The length-controlled win rate of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475): what the win rate would be if both
models wrote equally long responses.

The preference y (1 a win, .5 a tie, 0 a loss) is regressed on the model and on the difference in length d, in characters:

    P(win) = logistic(theta + phi tanh(d / sd(d)))

and the metric is that prediction at d = 0, logistic(theta). Where ours differs from theirs:

- Their third term, (psi_m - psi_b) gamma_x, in the difficulty of instruction x, needs gamma_x estimated from many models on
  the same instructions. A run has two, and gamma_x is left out: theta is an average over the instructions.
- They hold phi back by an L1 penalty chosen by cross-validation and by two altered baselines (a concise and a verbose one)
  among the data. Here it is held back by the weak normal prior PRIOR_SD, the same in every run. theta is free.
- An example (a prompt) weighs 1, shared among its responses, as in the raw win rate.

It cannot tell length from quality where every response is longer by about as much: phi stays near 0 then, and the raw win
rate is what is left. Nor where quality itself shows in length. And a judge of nothing but length is only made out with some
hundred examples: with fewer the rate stays between .5 and the raw one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

PRIOR_SD = 10.0
"""Of phi. Without a prior, a judge of length alone, whose preferences the sign of d foretells, would drive phi to infinity."""


@dataclass(frozen=True)
class LengthControl:
    """`rate` is logistic(theta). `values` [examples], whose mean is `rate`, are its influence function: value e is the rate
    plus what example e moves it by, times the number of examples. So their standard error is the sandwich estimate of the
    fit's own (Huber 1967), clustered or paired as that of any mean; sd(d) is taken as given. A value may lie outside [0, 1].
    """

    rate: float
    phi: float
    values: Floats


def length_controlled(wins: Sequence[float], longer: Sequence[float], example: Sequence[int]) -> LengthControl:
    """`wins` [B] in [0, 1], `longer` [B]: the difference in length; `example` [B]: which of 0, 1, ... each belongs to."""
    y, d, e = np.asarray(wins, np.float64), np.asarray(longer, np.float64), np.asarray(example, np.intp)
    responses = np.bincount(e)
    if (
        not len(y) or (y == y[0]).all()
    ):  # won, lost or tied throughout: length explains nothing, and theta may be infinite
        rate = float(y[0]) if len(y) else np.nan
        return LengthControl(rate, 0.0, np.full(len(responses), rate))
    spread = d.std()
    features = np.stack([np.ones_like(d), np.tanh(d / spread) if spread else np.zeros_like(d)], 1)  # [B, 2]
    weights = 1 / responses[e]
    penalty = np.array([0.0, PRIOR_SD**-2])
    beta = _fit(y, features, weights, penalty)

    rate = expit(beta[0])
    predicted = expit(features @ beta)
    pulls = (weights * (y - predicted))[:, None] * features
    by_example = np.stack([np.bincount(e, column) for column in pulls.T], 1) - penalty * beta / len(responses)
    hessian = _hessian(predicted, features, weights, penalty)
    moved = by_example @ np.linalg.solve(hessian, [rate * (1 - rate), 0.0])
    return LengthControl(float(rate), float(beta[1]), rate + len(responses) * moved)


def _fit(y: Floats, features: Floats, weights: Floats, penalty: Floats) -> Floats:
    """Newton's method on a strictly convex loss, with steps halved until they descend."""

    def loss(beta: Floats) -> float:
        logits = features @ beta
        return float(weights @ (np.logaddexp(0, logits) - y * logits) + penalty @ beta**2 / 2)

    beta = np.zeros(2)
    for _ in range(100):
        predicted = expit(features @ beta)
        gradient = features.T @ (weights * (predicted - y)) + penalty * beta
        step = np.linalg.solve(_hessian(predicted, features, weights, penalty), gradient)
        reached = loss(beta) * (1 + 1e-12)  # near the optimum rounding decides, and the whole step is right
        while loss(beta - step) > reached:
            step = step / 2
        beta = beta - step
        if np.abs(step).max() < 1e-10:
            break
    return beta


def _hessian(predicted: Floats, features: Floats, weights: Floats, penalty: Floats) -> Floats:
    found: Floats = (features.T * (weights * predicted * (1 - predicted))) @ features + np.diag(penalty)
    return found
