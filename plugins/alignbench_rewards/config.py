"""Configs of the reward sources; the only place where their defaults stand."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignbench import OptimizerConfig, UserError, unknown_name

LOSS_NAMES = ("bradley_terry", "plackett_luce")


@dataclass
class LearnedConfig(OptimizerConfig):
    """A reward model on the policy's base, fitted to rankings and standardised on samples of the SFT model."""

    updates: int = 0
    """As in OptimizerConfig; a batch is `batch_size` rankings."""
    passes: float = 1.0
    """As in OptimizerConfig."""
    batch_size: int = 16
    """Rankings (prompts with their K responses) per optimizer step."""
    micro_batch_size: int = 8
    """Rankings per forward pass: memory only."""
    learning_rate: float = 1e-4
    """As in OptimizerConfig."""
    loss: str = "bradley_terry"
    """bradley_terry (all pairs of a ranking, averaged within the prompt; arXiv 2203.02155, equation 1) or plackett_luce."""
    normalise: bool = True
    """Shift and scale the scores to mean 0 and standard deviation 1 on samples of the SFT model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSS_NAMES:
            raise unknown_name("reward.loss", self.loss, LOSS_NAMES)


@dataclass
class GoldConfig:
    """The data's own gold reward: what an algorithm does where the reward cannot be hacked."""


@dataclass
class LengthConfig:
    """The number of tokens and nothing else: a control for what length alone explains (arXiv 2310.03716)."""

    scale: float = 0.1
    """Reward per response token, EOS included; below 0 it rewards brevity."""

    def __post_init__(self) -> None:
        if self.scale == 0 or not math.isfinite(self.scale):
            raise UserError(
                f"reward.scale={self.scale} must be a number other than 0: every response would score alike."
            )
