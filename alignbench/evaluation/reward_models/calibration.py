"""Whether differences of scores mean what Bradley and Terry's model takes them to: P(better preferred) = sigmoid(difference)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from alignbench import functional
from alignbench.evaluation.reward_models.found import Found, found, name
from alignbench.evaluation.reward_models.scored import ScoredPair
from alignbench.records import Direction, MetricSpec

Floats = npt.NDArray[np.float64]


def calibration(pairs: Sequence[ScoredPair]) -> Found:
    """Brier's score and the expected calibration error (Guo et al., arXiv 1706.04599) of sigmoid(difference): in the unit that the scores
    have, which means something only where that is log-odds; and `scaled`, after one factor that was fitted on the pairs of other
    prompts (two halves, each with the factor of the other), which any source can be held to."""
    if not pairs:
        return Found()
    margins = np.array([pair.margin for pair in pairs])
    clusters = [pair.cluster for pair in pairs]
    total = Found()
    for end, own in (("", margins), ("_scaled", scaled(margins, clusters))):
        brier = (1 - _sigmoid(own)) ** 2
        spec = MetricSpec(name(f"brier{end}"), Direction.LOWER, "squared error of a probability")
        total += found(spec, ((p.example, float(b), p.cluster) for p, b in zip(pairs, brier, strict=True)))
        spec = MetricSpec(name(f"calibration_error{end}"), Direction.LOWER, "probability")
        confidence, right = (torch.from_numpy(x) for x in (_sigmoid(np.abs(own)), (np.sign(own) + 1) / 2))
        shares = functional.calibration_shares(confidence, right).tolist()
        total += found(spec, ((p.example, share, p.cluster) for p, share in zip(pairs, shares, strict=True)))
    return total


def scaled(margins: Floats, clusters: Sequence[str]) -> Floats:
    """Differences in log-odds: each half of the clusters times the factor that suits the other half best."""
    numbers = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    half = np.array([numbers[cluster] % 2 for cluster in clusters])
    own = margins.copy()
    for side in (0, 1):
        other = margins[half != side]
        own[half == side] *= factor(other) if len(other) else 1.0
    return own


def factor(margins: Floats) -> float:
    """The factor, 0 or more, under which all of these pairs are most likely: it minimises the mean of -log sigmoid(factor x). Where all
    are right there is no best one: then that which makes the median pair about certain."""
    from scipy.optimize import minimize_scalar

    size = float(np.median(np.abs(margins[margins != 0]))) if (margins != 0).any() else 0.0
    if not size:
        return 1.0
    best = minimize_scalar(lambda a: np.logaddexp(0, -a * margins / size).mean(), bounds=(0, 20), method="bounded")
    return float(best.x) / size


def _sigmoid(x: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(x), dtype=np.float64)
