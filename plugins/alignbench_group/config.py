"""The configs of the family; the only place where their defaults stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from alignbench import MISSING_EOS, CorrectedConfig, UserError, bounded, unknown_name

KL_IN = ("loss", "reward")
KL_ESTIMATORS = ("k1", "k2", "k3")
LENGTH_NORMALISATION = ("response", "token", "none")


@dataclass
class GroupConfig(CorrectedConfig):
    """What all of them share: responses to the same prompt, compared with one another."""

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

    clip_ratio: float = bounded(0.2, above=0, most=1e6)
    """Clipping of the probability ratio; without effect while epochs and minibatches are 1."""
    importance: str = "sequence"
    """As in CorrectedConfig; a response is one action here."""


@dataclass
class RelativeConfig(GroupConfig):
    """What GRPO and those that follow it share: an advantage relative to the group, and where the KL stands."""

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

    @property
    def divides_by(self) -> str:
        """One of LENGTH_NORMALISATION."""
        return "response"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl_in not in KL_IN:
            raise unknown_name("algo.kl_in", self.kl_in, KL_IN)
        if self.kl_estimator not in KL_ESTIMATORS:
            raise unknown_name("algo.kl_estimator", self.kl_estimator, KL_ESTIMATORS)
        if self.divides_by not in LENGTH_NORMALISATION:
            raise unknown_name("algo.length_normalisation", self.divides_by, LENGTH_NORMALISATION)
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise UserError(
                "algo.kl_estimator=k1 in the loss does nothing: on the policy's own samples its expected gradient is 0. "
                "Choose algo.kl_estimator=k2 or k3, or algo.kl_in=reward."
            )


@dataclass
class TokenConfig(RelativeConfig):
    """Those whose tokens have each a probability ratio of its own: how a loss of tokens becomes one of a batch."""

    length_normalisation: str = "response"
    """response (the mean over a response's tokens, then over responses), token (the mean over all tokens of a minibatch, as DAPO) or
    none (the sum over a response's tokens, as Dr. GRPO up to a constant factor)."""

    @property
    def divides_by(self) -> str:
        return self.length_normalisation


@dataclass
class GRPOConfig(TokenConfig):
    """Group relative policy optimisation (arXiv 2402.03300), and its unbiased form Dr. GRPO (arXiv 2503.20783)."""

    clip_ratio: float = bounded(0.2, above=0, most=1e6)
    """Clipping of the probability ratio; without effect while epochs and minibatches are 1."""
    clip_ratio_high: float | None = bounded(None, above=0, most=1e6)
    """Of the ratio at its upper end, as 1 + clip_ratio_high (clip-higher, arXiv 2503.14476); null: clip_ratio."""


@dataclass
class DAPOConfig(GRPOConfig):
    """Decoupled clip and dynamic sampling policy optimisation (arXiv 2503.14476)."""

    clip_ratio_high: float | None = 0.28
    """As in GRPOConfig."""
    length_normalisation: str = "token"
    """As in TokenConfig."""
    leave_out_flat: bool = True
    """Leave out groups whose scores are all equal, so that they neither dilute a mean nor pay for KL (dynamic sampling, without
    drawing others in their place)."""
    overlong_buffer: float = bounded(0.2, above=0, most=1)
    """Share of the longest possible response, at its end, over which the score falls linearly with the length by overlong_penalty."""
    overlong_penalty: float = bounded(1.0, least=0, most=1e4)
    """Of a response of the longest possible length, reward units; 0: none."""
    missing_eos: str = "keep"
    """As in GroupConfig. A response that was cut off pays the whole overlong_penalty as it is."""


@dataclass
class GDPOConfig(GRPOConfig):
    """GRPO on a reward of several parts, each normalised by itself within the group (GDPO, arXiv 2601.05242)."""

    scale_by_std: bool = True
    """Divide each part within a group by its own standard deviation there; False: parts keep their sizes."""
    std_eps: float = 1e-4
    """Added to those standard deviations, in the part's unit, and to that of the batch."""
    scale_by_batch: bool = True
    """Divide what the parts add up to by its standard deviation over the batch, so that more parts do not make larger steps."""
    missing_eos: str = "subtract"
    """As in GroupConfig, in a part of its own: -1 for a response that was cut off, which with `replace` gets 0 of all others."""
    missing_eos_penalty: float = 1.0
    """The weight of that part."""


@dataclass
class GSPOConfig(RelativeConfig):
    """Group sequence policy optimisation: the probability ratio of a response, a mean over its tokens (arXiv 2507.18071)."""

    clip_ratio: float = bounded(3e-4, above=0, most=1e6)
    """Clipping of the response's ratio at its lower end: a mean over tokens moves less than a token's, by orders of magnitude. Without
    effect while epochs and minibatches are 1."""
    clip_ratio_high: float | None = bounded(4e-4, above=0, most=1e6)
    """The same at its upper end; null: clip_ratio."""


@dataclass
class CISPOConfig(TokenConfig):
    """Clipped importance-sampling weights in place of clipped steps (arXiv 2506.13585)."""

    length_normalisation: str = "token"
    """As in TokenConfig."""
    ratio_limit: float = bounded(5.0, above=0, most=1e6)
    """The largest weight that a token's gradient may have, min(ratio, ratio_limit): 1 + the paper's upper epsilon. Without effect while
    epochs and minibatches are 1, unless it is below 1."""


@dataclass
class SAPOConfig(TokenConfig):
    """Soft adaptive policy optimisation: a smooth gate in place of the clip (arXiv 2511.20347)."""

    gate_positive: float = bounded(1.0, above=0, most=1e4)
    """Tau of the gate sigmoid(tau (ratio - 1)) 4 / tau where the advantage is above 0: how soon a token that has moved counts less."""
    gate_negative: float = bounded(1.05, above=0, most=1e4)
    """The same where it is below 0. Larger: pushing a token down raises all others, which is noisier."""


@dataclass
class ReinforcePPConfig(GroupConfig):
    """REINFORCE++: a token pays for what follows it, and advantages are normalised over the batch (arXiv 2501.03262)."""

    samples_per_prompt: int = bounded(1, least=1, most=1e4)
    """Responses to each prompt. They are not compared with one another; batch_size must be a multiple of it."""
    clip_ratio: float = bounded(0.2, above=0, most=1e6)
    """Clipping of the probability ratio; without effect while epochs and minibatches are 1."""


@dataclass
class ReinforcePPBaselineConfig(GroupConfig):
    """REINFORCE++ with a baseline: the mean of the group is taken off before the batch is normalised (arXiv 2501.03262)."""

    samples_per_prompt: int = 8
    """As in GroupConfig."""
    kl_in: str = "loss"
    """loss (k2 at every token, differentiated, as in the paper) or reward (as in REINFORCE++)."""
    clip_ratio: float = bounded(0.2, above=0, most=1e6)
    """As in ReinforcePPConfig."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl_in not in KL_IN:
            raise unknown_name("algo.kl_in", self.kl_in, KL_IN)


@dataclass
class MaxRLConfig(GroupConfig):
    """Maximum likelihood RL: the log-probability of success in place of its probability (arXiv 2602.02710)."""

    samples_per_prompt: int = 8
    """As in GroupConfig; the more, the nearer to the log-probability itself."""
    success_above: float = bounded(0.5)
    """A response succeeds where its score is above it, reward units: right is 1 and wrong 0 with `reward=verify`."""
    clip_ratio: float = bounded(0.2, above=0, most=1e6)
    """Clipping of the probability ratio of a token; without effect while epochs and minibatches are 1."""
