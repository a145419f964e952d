"""Best-of-n: a rule for how a model is sampled, and the exact distribution that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignbench import ExactProblem, Policy, PolicyOptimizer, Seeds, UpdateReport
from alignbench_selection.config import BestOfNConfig

_EQUAL = 1e-9


class BestOfN(PolicyOptimizer[Any]):
    """Nothing to train: it consumes nothing, so the core never builds or updates it and evaluates the SFT model with
    `config.candidates` responses to choose from. It is a class for the sake of its `optimum`."""

    def __init__(self, config: BestOfNConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        pass

    @classmethod
    def optimum(cls, config: BestOfNConfig, problem: ExactProblem) -> Tensor | None:
        return best_of_n(problem.reference, problem.rewards, config.n)

    def update(self, batch: Any) -> UpdateReport:
        return UpdateReport({}, optimizer_steps=0)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def best_of_n(reference: Tensor, rewards: Tensor, n: int) -> Tensor:
    """[X, Y]: P(y) = pi_ref(y) / p(level) * (F(r)^n - F(r-)^n), float64 (Beirami et al., arXiv 2401.01879).

    p(level) is the reference's mass on the responses of one reward, F and F- the mass at most and below it: the best
    level of n draws has F^n - F-^n, and within a level the first of equals is any of them in proportion to pi_ref.
    Rewards closer than 1e-9 of their size are equal: sums in another order must not break a tie."""
    ordered, order = rewards.double().sort(dim=1)
    gap = ordered.diff(dim=1) > _EQUAL * ordered[:, 1:].abs().clamp(min=1.0)
    level = torch.nn.functional.pad(gap.long().cumsum(1), (1, 0))
    prior = reference.double().gather(1, order)
    mass = torch.zeros_like(prior).scatter_add_(1, level, prior)  # column l: level l; empty ones have 0
    reached = mass.cumsum(1)
    won = reached**n - (reached - mass).clamp(min=0.0) ** n
    share = torch.where(mass > 0, won / mass, 0.0).gather(1, level) * prior
    return torch.zeros_like(share).scatter(1, order, share)
