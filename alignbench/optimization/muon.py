"""Muon (Jordan 2024, kellerjordan.github.io/posts/muon): the momentum of a matrix, made nearly orthogonal, is its step.

torch's own Muon takes matrices alone; all other weights have AdamW beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from alignbench.errors import UserError
from alignbench.optimization.config import MuonConfig
from alignbench.optimizer_config import OptimizerConfig

_LIKE_ADAMW = "match_rms_adamw"
"""Steps of a matrix get the size that AdamW's have (arXiv 2502.16982, equation 4), so that one learning rate serves both."""


def check_there(config: MuonConfig) -> None:
    """torch has it from 2.9 on."""
    if not hasattr(torch.optim, "Muon"):
        raise UserError(f"optimizer=muon needs torch 2.9 or later, not {torch.__version__}: use optimizer=adamw.")


class Muon(torch.optim.Optimizer):
    """torch's Muon and AdamW as one optimizer: they step on the groups and the state of this one."""

    def __init__(self, config: MuonConfig, *, groups: Sequence[dict[str, Any]], settings: OptimizerConfig) -> None:
        check_there(config)
        matrices, others = _split(groups, matrices=True), _split(groups, matrices=False)
        rate, decay = settings.learning_rate, settings.weight_decay
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(
                torch.optim.Muon(
                    matrices,
                    lr=rate,
                    weight_decay=decay,
                    momentum=config.momentum,
                    nesterov=config.nesterov,
                    ns_steps=config.orthogonalisation_steps,
                    adjust_lr_fn=_LIKE_ADAMW,
                )
            )
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=rate, weight_decay=decay, eps=settings.adam_eps))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self._parts:
            part.state = self.state
            part.param_groups = [next(groups) for _ in part.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self._parts:
            part.step()


def _split(groups: Sequence[dict[str, Any]], *, matrices: bool) -> list[dict[str, Any]]:
    """The weights of each group that are matrices, or those that are not; a matrix of one row or one column is a vector."""
    found = []
    for group in groups:
        chosen = [w for w in group["params"] if (w.ndim == 2 and min(w.shape) > 1) == matrices]
        if chosen:
            found.append({**group, "params": chosen})
    return found
