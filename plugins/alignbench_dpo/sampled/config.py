"""The configs of online IPO, XPO and Nash-MD; the only place where their defaults stand."""

from __future__ import annotations

from dataclasses import dataclass

from alignbench import MISSING_EOS, POLICY, REFERENCE, RolloutConfig, Source, UserError, bounded, unknown_name

LABELS = ("hard", "soft")


@dataclass
class SampledConfig(RolloutConfig):
    """What algorithms have in common that have neighbours of a rollout compared by their scores."""

    updates: int = 50
    """As in OptimizerConfig."""
    batch_size: int = 64
    """Responses sampled per update, two to a pair."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: memory only."""
    learning_rate: float = 3e-5
    """As in OptimizerConfig."""
    samples_per_prompt: int = bounded(2, least=2, most=1e4)
    """Responses sampled for each prompt, an even number: the first two are a pair, the next two another."""

    labels: str = "hard"
    """hard (the higher score wins, equal scores draw) or soft: the first wins with probability sigmoid(its score - the other's),
    Bradley-Terry on the scores."""
    missing_eos: str = "subtract"
    """A response cut off before EOS: subtract (its score less missing_eos_penalty), replace (the score becomes
    -missing_eos_penalty) or keep."""
    missing_eos_penalty: float = bounded(1.0, least=0, most=1e4)
    """See missing_eos; in reward units."""

    @property
    def rows_with_gradients(self) -> int:
        """Both responses of each pair."""
        return 2 * min(self.micro_batch_size, self.batch_size // 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_per_prompt % 2:
            raise UserError(
                f"algo.samples_per_prompt={self.samples_per_prompt} is odd: responses are compared two by two."
            )
        if self.labels not in LABELS:
            raise unknown_name("algo.labels", self.labels, LABELS)
        if self.missing_eos not in MISSING_EOS:
            raise unknown_name("algo.missing_eos", self.missing_eos, MISSING_EOS)


@dataclass
class OnlineIPOConfig(SampledConfig):
    """Online IPO: IPO's loss on pairs of the policy's own, which is self-play (arXiv 2403.08635)."""

    tau: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in units of win probability per nat, as in IPO."""
    reference_share: float = bounded(0.0, least=0, most=1)
    """Both responses are drawn from the mixture pi^(1 - share) pi_ref^share, token by token: 0 is online IPO, above it IPO-MD, 1 the
    reference alone."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """As in RolloutConfig."""
        return (mixture(self.reference_share),)


@dataclass
class XPOConfig(SampledConfig):
    """Exploratory preference optimisation: online DPO against the reference, and optimism (arXiv 2405.21046)."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in reward units per nat, as in DPO."""
    alpha: float = bounded(1e-5, least=0, most=1e4)
    """Optimism: weight of log pi of the reference's responses, which is minimised; no unit. 0: none."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The policy and the reference in turn."""
        return Source(POLICY), Source(REFERENCE)


@dataclass
class NashMDConfig(SampledConfig):
    """Nash-MD: a policy gradient of the win rate against a mixture of itself and the reference (arXiv 2312.00886)."""

    micro_batch_size: int = 32
    """Responses of the policy's own per backward pass: memory only."""
    tau: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in units of win probability per nat, as in IPO."""
    reference_share: float = bounded(0.125, least=0, most=1)
    """The opponent draws from the mixture pi^(1 - share) pi_ref^share, token by token (the paper's beta): 0 is self-play, 1 the reference
    alone."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The policy and its opponent in turn."""
        return Source(POLICY), mixture(self.reference_share)

    @property
    def rows_with_gradients(self) -> int:
        """The policy's own response of each pair."""
        return min(self.micro_batch_size, self.batch_size // 2)


def mixture(share: float) -> Source:
    """The policy, the reference, or both."""
    return Source(REFERENCE) if share == 1 else Source(POLICY, share)
