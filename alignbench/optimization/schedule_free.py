"""Schedule-free AdamW (Defazio et al., arXiv 2405.15682, algorithm 1): z is the newest iterate, x the average, y between them.

The weights are x wherever anybody looks: while responses are sampled, in an evaluation, in a checkpoint. They are y from
`zero_grad` to `step`, so that a gradient is taken where the paper takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignbench.optimization.config import ScheduleFreeConfig
from alignbench.optimizer_config import OptimizerConfig

_BETA2 = 0.999


class ScheduleFreeAdamW(torch.optim.Optimizer):
    def __init__(
        self, config: ScheduleFreeConfig, *, groups: Sequence[dict[str, Any]], settings: OptimizerConfig
    ) -> None:
        super().__init__(
            groups,
            {
                "lr": settings.learning_rate,
                "eps": settings.adam_eps,
                "weight_decay": settings.weight_decay,
                "beta": config.beta,
                "steps": 0,
                "weight_sum": 0.0,
            },
        )
        self._averages: dict[Tensor, Tensor] = {}  # x of the weights that are y just now

    @torch.no_grad()
    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for group in self.param_groups:
            for weights in group["params"]:
                if weights not in self._averages and (state := self.state.get(weights)):
                    self._averages[weights] = weights.clone()
                    weights.lerp_(state["z"], 1 - group["beta"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            group["steps"] += 1
            group["weight_sum"] += rate**2  # later iterates count by the square of their rate
            share = rate**2 / group["weight_sum"] if group["weight_sum"] else 0.0
            correction = 1 - _BETA2 ** group["steps"]
            for weights in group["params"]:
                state, average = self.state[weights], self._averages.pop(weights, weights)
                if not state:
                    state["z"], state["square"] = weights.clone(), torch.zeros_like(weights)
                z, square = state["z"], state["square"]
                if weights.grad is not None:
                    square.lerp_(weights.grad.square(), 1 - _BETA2)
                    z.add_(weights, alpha=-rate * decay)
                    z.addcdiv_(weights.grad, (square / correction).sqrt_().add_(group["eps"]), value=-rate)
                weights.copy_(average.lerp(z, share))
