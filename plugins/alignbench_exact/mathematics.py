"""Closed forms over distributions that are written down: [X, Y] float64, rows sum to 1."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import ExactProblem


def optimum(problem: ExactProblem, beta: float) -> Tensor:
    """pi*(y|x) = pi_ref(y|x) exp(r(x, y) / beta) / Z(x): it maximises E[r] - beta KL(pi || pi_ref), at beta log Z."""
    return torch.softmax(problem.reference.log() + problem.rewards / beta, 1)


def total_variation(left: Tensor, right: Tensor) -> Tensor:
    """[X]: half the L1 distance."""
    return 0.5 * (left - right).abs().sum(1)


def kl(left: Tensor, right: Tensor) -> Tensor:
    """[X]: KL(left || right) in nats; what `left` never gives counts nothing."""
    return torch.where(left > 0, left * (left.log() - right.log()), torch.zeros_like(left)).sum(1)


def best_of(n: int, distribution: Tensor, scores: Tensor) -> Tensor:
    """The distribution of the best of n draws by `scores`; of equal ones the first drawn.

    P(best scores s) = F(s)^n - F(s-)^n, and among equals each is as likely as it was to be drawn."""
    found = torch.zeros_like(distribution)
    for x in range(len(distribution)):
        for score in scores[x].unique():
            level, below = scores[x] == score, scores[x] < score
            mass, under = distribution[x][level].sum(), distribution[x][below].sum()
            found[x][level] = distribution[x][level] / mass * ((mass + under) ** n - under**n)
    return found
