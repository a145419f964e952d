"""The config of supervised fine-tuning; the only place where its defaults stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alignbench import Consumes, OptimizerConfig


@dataclass
class SFTConfig(OptimizerConfig):
    """Supervised fine-tuning: maximises the likelihood of demonstrated responses."""

    consumes: ClassVar[Consumes] = Consumes.DEMONSTRATIONS

    updates: int = 0
    """As in OptimizerConfig."""
    passes: float = 1.0
    """As in OptimizerConfig."""
    batch_size: int = 32
    """As in OptimizerConfig."""
    learning_rate: float = 2e-4
    """As in OptimizerConfig."""
    lr_schedule: str = "cosine"
    """As in OptimizerConfig."""
