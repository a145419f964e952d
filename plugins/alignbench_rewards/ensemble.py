"""Several reward models as one: their scores together (Coste et al., arXiv 2310.02743), or the mean of their weights (WARM; Ramé et al.,
arXiv 2401.12187)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alignbench import ScalarRole
from alignbench_rewards.config import LearnedConfig


def together(members: Tensor, config: LearnedConfig, unit: float) -> Tensor:
    """[B], from the scores [B, M] of the members. `unit`: the scores in which `uncertainty` is meant, in those that are given.

    Of one member, its score. Worst: the lowest (section 4.1 of Coste et al., WCO). Uncertainty: the mean less `uncertainty` times the
    variance within the ensemble (UWO)."""
    if config.ensemble == "worst":
        return members.amin(1)
    mean = members.mean(1)
    if config.ensemble == "uncertainty":
        return mean - config.uncertainty * unit * members.var(1, correction=0)
    return mean


def standardise(roles: Sequence[ScalarRole], scores: Tensor) -> float:
    """Shifts and scales the heads so that what are `scores` now has mean 0 and deviation 1; returns the deviation that they had. It is
    folded into the heads: a value network that starts from a role reads values in the unit of the scores, not in that of the raw head."""
    deviation = float(scores.std(correction=0))
    # Scores that are all equal up to rounding have no scale: dividing by it would blow up all others.
    deviation = deviation if deviation > 1e-6 else 1.0
    for role in roles:
        role.rescale(float(scores.mean()), deviation)
    return deviation


def weights_of(role: ScalarRole) -> list[Tensor]:
    """A copy."""
    return [parameter.detach().clone() for parameter in role.parameters()]


def put(role: ScalarRole, weights: Sequence[Tensor]) -> None:
    """Overwrites the role's weights."""
    with torch.no_grad():
        for parameter, value in zip(role.parameters(), weights, strict=True):
            parameter.copy_(value)


def averaged(sums: Sequence[Tensor], weights: Sequence[Tensor], share: float) -> list[Tensor]:
    """`sums` with that share of the weights added; a member of M has a share of 1 / M. Empty sums are 0."""
    if not sums:
        return [share * weight for weight in weights]
    return [old.to(new) + share * new for old, new in zip(sums, weights, strict=True)]
