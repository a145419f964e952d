"""Where the losses lead when everything is known: distributions over all responses, [X, Y] float64."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import ExactProblem


def bradley_terry_optimum(problem: ExactProblem, beta: float) -> Tensor:
    """pi_ref(y|x) exp(r(x, y) / beta) / Z(x) (arXiv 2305.18290, equation 4)."""
    return torch.softmax(problem.reference.log() + problem.rewards / beta, 1)


def identity_optimum(problem: ExactProblem, tau: float) -> Tensor:
    """pi_ref(y|x) exp(P(y) / tau) / Z(x), P(y) = E_{y' ~ pi_ref}[s(r(x, y) - r(x, y'))] (arXiv 2310.12036)."""
    wins = torch.sigmoid(problem.rewards[:, :, None] - problem.rewards[:, None, :])
    return torch.softmax(problem.reference.log() + torch.einsum("xyz,xz->xy", wins, problem.reference) / tau, 1)
