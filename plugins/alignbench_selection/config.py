"""The configs of best-of-n and of rejection sampling; the only place where their defaults stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alignbench import POLICY, REFERENCE, AlgorithmConfig, Consumes, RolloutConfig, bounded, unknown_name


@dataclass
class BestOfNConfig(AlgorithmConfig):
    """Best-of-n: trains nothing; of n responses the one with the highest score is given (arXiv 2009.01325, 2112.09332)."""

    consumes: ClassVar[Consumes] = Consumes.NOTHING

    n: int = bounded(8, least=2, most=1e4)
    """Responses drawn for each response given, at least 2."""

    @property
    def candidates(self) -> int:
        return self.n


@dataclass
class RejectionSamplingConfig(RolloutConfig):
    """Supervised fine-tuning on the best of n own responses: rejection sampling (arXiv 2307.09288), RAFT (2304.06767)."""

    kl_price: ClassVar[str | None] = ""

    updates: int = 50
    """As in OptimizerConfig."""
    batch_size: int = 128
    """Responses sampled per update; 1 in samples_per_prompt of them is learnt from."""
    learning_rate: float = 3e-5
    """As in OptimizerConfig."""
    samples_per_prompt: int = bounded(8, least=2, most=1e4)
    """n: responses of which the best is imitated, at least 2; batch_size must be a multiple of it."""
    samples_from: str = REFERENCE
    """reference (the frozen SFT model: best-of-n is distilled) or policy (as it stands: RAFT)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_from not in (POLICY, REFERENCE):
            raise unknown_name("algo.samples_from", self.samples_from, (POLICY, REFERENCE))
