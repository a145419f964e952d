"""AdamW, as torch has it and as bitsandbytes has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from alignbench.errors import UserError
from alignbench.optimization.config import AdamWConfig, PagedAdamW8bitConfig
from alignbench.optimizer_config import OptimizerConfig


def adamw(config: AdamWConfig, *, groups: Sequence[dict[str, Any]], settings: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, eps=settings.adam_eps, weight_decay=settings.weight_decay
    )


def paged_adamw_8bit(
    config: PagedAdamW8bitConfig, *, groups: Sequence[dict[str, Any]], settings: OptimizerConfig
) -> torch.optim.Optimizer:
    if odd := {weights.device.type for group in groups for weights in group["params"]} - {"cuda"}:
        raise UserError(
            f"optimizer=paged_adamw_8bit needs a CUDA device, not {', '.join(sorted(odd))}: use optimizer=adamw."
        )
    import bitsandbytes

    made: torch.optim.Optimizer = bitsandbytes.optim.PagedAdamW8bit(
        groups, lr=settings.learning_rate, eps=settings.adam_eps, weight_decay=settings.weight_decay
    )
    return made
