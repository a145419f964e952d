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
rate is what is left. Nor where quality itself shows in length. With few examples it errs to either side: under a judge of nothing but
length it lies outside of .5 to the raw rate about as often as within. So there is none below FEWEST examples, nor below
FEWEST_OUTCOMES won and as many lost, and the standard error is that of a bootstrap where that is the larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

FEWEST, FEWEST_OUTCOMES = 50, 10.0
"""Ten of the rarer outcome for a slope in a logistic regression (Peduzzi et al. 1996, J. Clin. Epidemiol. 49, 1373-1379)."""
DRAWS, SEED = 100, 2404
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


def enough(wins: Sequence[float], example: Sequence[int]) -> bool:
    """Whether there are examples enough to tell length from quality."""
    weights = 1 / np.bincount(example)[np.asarray(example, np.intp)] if len(example) else np.zeros(0)
    won = float(weights @ np.asarray(wins, np.float64))
    examples = float(weights.sum())
    return round(examples) >= FEWEST and min(won, examples - won) >= FEWEST_OUTCOMES


def widened(
    found: LengthControl, wins: Sequence[float], longer: Sequence[float], example: Sequence[int], cluster: Sequence[str]
) -> Floats:
    """The values, farther from the rate where fits to drawn clusters of examples spread more than the sandwich estimate says: it
    takes sd(d) and the curvature for known. `cluster` [examples]."""
    y, d, e = np.asarray(wins, np.float64), np.asarray(longer, np.float64), np.asarray(example, np.intp)
    of = np.unique(np.asarray(cluster), return_inverse=True)[1]
    groups = int(of.max()) + 1
    sums = np.bincount(of, found.values - found.rate)
    spread = float(np.sqrt(groups / max(groups - 1, 1) * (sums**2).sum()) / len(found.values))
    if spread == 0 or groups < 2:
        return found.values
    rows = [np.flatnonzero(of[e] == g) for g in range(groups)]
    rng, rates = np.random.default_rng(SEED), []
    for _ in range(DRAWS):
        drawn = [rows[g] for g in rng.integers(groups, size=groups)]
        taken = np.concatenate(drawn)
        copy = np.repeat(np.arange(groups), [len(part) for part in drawn])
        fresh = np.unique(np.stack([copy, e[taken]]), axis=1, return_inverse=True)[1].reshape(-1)
        rates.append(length_controlled(y[taken].tolist(), d[taken].tolist(), fresh.tolist()).rate)
    values: Floats = found.rate + (found.values - found.rate) * max(1.0, float(np.std(rates, ddof=1)) / spread)
    return values


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
