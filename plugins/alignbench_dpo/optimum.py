"""Where the identity loss leads when everything is known: a distribution over all responses, [X, Y] float64."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import ExactProblem, functional


def identity_optimum(problem: ExactProblem, tau: float) -> Tensor:
    """pi_ref(y|x) exp(P(y) / tau) / Z(x), P(y) = E_{y' ~ pi_ref}[s(r(x, y) - r(x, y'))] (arXiv 2310.12036)."""
    wins = torch.sigmoid(problem.rewards[:, :, None] - problem.rewards[:, None, :])
    return functional.kl_optimum(problem.reference, torch.einsum("xyz,xz->xy", wins, problem.reference), tau)
