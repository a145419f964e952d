"""Lion (Chen et al., arXiv 2302.06675, algorithm 2): each weight moves by the sign of its momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from alignbench import OptimizerConfig
from alignbench_example.config import LionConfig


class Lion(torch.optim.Optimizer):
    def __init__(self, config: LionConfig, *, groups: Sequence[dict[str, Any]], settings: OptimizerConfig) -> None:
        super().__init__(groups, {"lr": settings.learning_rate, "weight_decay": settings.weight_decay})
        self._within, self._beyond = config.beta_1, config.beta_2

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weights in (w for w in group["params"] if w.grad is not None):
                momentum = self.state[weights].setdefault("momentum", torch.zeros_like(weights))
                weights.mul_(1 - group["lr"] * group["weight_decay"])
                weights.add_(momentum.lerp(weights.grad, 1 - self._within).sign_(), alpha=-group["lr"])
                momentum.lerp_(weights.grad, 1 - self._beyond)
