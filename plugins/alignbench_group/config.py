"""The configs of RLOO and GRPO; the only place where their defaults stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from alignbench import MISSING_EOS, CorrectedConfig, UserError, bounded, unknown_name

KL_IN = ("loss", "reward")
KL_ESTIMATORS = ("k1", "k2", "k3")
LENGTH_NORMALISATION = ("response", "none")


@dataclass
class GroupConfig(CorrectedConfig):
    """What RLOO and GRPO share: several responses to each prompt, compared with one another."""

    updates: int = 50
    """As in OptimizerConfig."""
    batch_size: int = 64
    """As in OptimizerConfig."""
    learning_rate: float = 3e-5
    """As in OptimizerConfig."""
    samples_per_prompt: int = bounded(4, least=2, most=1e4)
    """k: responses in a group, at least 2, for the baseline of a response is the others; batch_size must be a multiple of it."""

    kl_coef: float = bounded(0.1, least=0, most=1e4)
    """Weight of the KL penalty, reward units per nat."""
    epochs: int = bounded(1, least=1, most=1000)
    """Passes over each batch of rollouts."""
    minibatches: int = bounded(1, least=1)
    """Optimizer steps per epoch; batch_size must be a multiple of it."""
    clip_ratio: float = bounded(0.2, above=0, most=1e6)
    """Clipping of the probability ratio; without effect while epochs and minibatches are 1."""
    missing_eos: str = "subtract"
    """A response cut off before EOS: subtract (its score less missing_eos_penalty), replace (the score becomes
    -missing_eos_penalty) or keep."""
    missing_eos_penalty: float = bounded(1.0, least=0, most=1e4)
    """See missing_eos; in reward units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.minibatches:
            raise UserError(
                f"algo.batch_size={self.batch_size} is not a multiple of algo.minibatches={self.minibatches}: every "
                "minibatch must have the same size."
            )
        if self.missing_eos not in MISSING_EOS:
            raise unknown_name("algo.missing_eos", self.missing_eos, MISSING_EOS)


@dataclass
class RLOOConfig(GroupConfig):
    """REINFORCE with a leave-one-out baseline on whole responses, KL in the reward (arXiv 2402.14740)."""

    importance: str = "sequence"
    """As in CorrectedConfig; a response is one action here."""


@dataclass
class GRPOConfig(GroupConfig):
    """Group relative policy optimisation (arXiv 2402.03300), and its unbiased form Dr. GRPO (arXiv 2503.20783)."""

    inert: ClassVar[Mapping[str, str]] = {
        **GroupConfig.inert,
        "kl_estimator=k1": "it is refused in the loss, and unused in the reward",
    }

    samples_per_prompt: int = 8
    """As in GroupConfig."""
    scale_by_std: bool = True
    """Divide the advantages of a group by the standard deviation of its rewards; False in Dr. GRPO."""
    std_eps: float = bounded(1e-4, least=1e-12, most=1e3)
    """Added to that standard deviation, reward units."""
    kl_in: str = "loss"
    """loss (an estimate of the KL at every token, differentiated) or reward (the KL of the response, as in RLOO)."""
    kl_estimator: str = "k3"
    """Of the KL in the loss: k3 (the paper's) or k2. k1 is refused there: its expected gradient is 0. Unused where
    kl_in=reward."""
    length_normalisation: str = "response"
    """response (the mean over a response's tokens, then over responses) or none (the sum over its tokens, as Dr. GRPO up
    to a constant factor)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl_in not in KL_IN:
            raise unknown_name("algo.kl_in", self.kl_in, KL_IN)
        if self.kl_estimator not in KL_ESTIMATORS:
            raise unknown_name("algo.kl_estimator", self.kl_estimator, KL_ESTIMATORS)
        if self.length_normalisation not in LENGTH_NORMALISATION:
            raise unknown_name("algo.length_normalisation", self.length_normalisation, LENGTH_NORMALISATION)
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise UserError(
                "algo.kl_estimator=k1 in the loss does nothing: on the policy's own samples its expected gradient is 0. "
                "Choose algo.kl_estimator=k2 or k3, or algo.kl_in=reward."
            )
