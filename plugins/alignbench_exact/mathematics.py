"""Distances between distributions that are written down: [X, Y] float64, rows sum to 1."""

from __future__ import annotations

import torch
from torch import Tensor


def total_variation(left: Tensor, right: Tensor) -> Tensor:
    """[X]: half the L1 distance."""
    return 0.5 * (left - right).abs().sum(1)


def kl(left: Tensor, right: Tensor) -> Tensor:
    """[X]: KL(left || right) in nats; what `left` never gives counts nothing."""
    return torch.where(left > 0, left * (left.log() - right.log()), torch.zeros_like(left)).sum(1)
