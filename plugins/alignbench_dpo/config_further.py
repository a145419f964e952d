"""The configs of the family's later members: pairs matched over a batch, KL of each token, rounds of fresh rankings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from alignbench import ImplicitReward, UserError, bounded, unknown_name
from alignbench_dpo.config import OnlineDPOConfig, PairwiseConfig, SoftConfig

FORMS = ("paired", "unpaired")
AOT_LOSSES = ("sigmoid", "hinge", "ipo")
VARIANTS = ("tdpo1", "tdpo2")
RANKED_BY = ("annotator", "reward")
REFERENCES = ("sft", "round")
PAIRS = ("best_worst", "all")


@dataclass
class AOTConfig(PairwiseConfig):
    """Alignment by optimal transport: the better side's distribution is to dominate, not each pair (arXiv 2406.05882)."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Scale of a difference of log-ratios, in reward units per nat; with loss=ipo quantiles are to be 1 / (2 beta) nats apart."""
    form: str = "paired"
    """paired: over a batch, the policy's log-ratios of chosen to rejected are to dominate the reference's; unpaired: log pi / pi_ref of
    the chosen responses is to dominate that of the rejected ones, whatever they answer."""
    loss: str = "sigmoid"
    """What a violated quantile costs: sigmoid (logistic), hinge or ipo (least squares), as in DPO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise unknown_name("algo.form", self.form, FORMS)
        if self.loss not in AOT_LOSSES:
            raise unknown_name("algo.loss", self.loss, AOT_LOSSES)


@dataclass
class TDPOConfig(SoftConfig):
    """Token-level DPO: the margin takes in the KL that the policy spends on each response's tokens (arXiv 2404.11999)."""

    reads_distributions: ClassVar[bool] = True

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL at a token, in reward units per nat."""
    variant: str = "tdpo2"
    """tdpo1: the difference of the two responses' KL is taken off the margin whole; tdpo2: alpha of it, and the chosen response's KL
    gets no gradient."""
    alpha: float = bounded(0.5, least=0, most=1e4)
    """Of tdpo2: share of the difference in KL that is taken off, no unit; 0: DPO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise unknown_name("algo.variant", self.variant, VARIANTS)

    @property
    def kl_share(self) -> float:
        """Of the difference in KL: alpha, and all of it in tdpo1."""
        return self.alpha if self.variant == "tdpo2" else 1.0

    def implicit_reward(self) -> ImplicitReward:
        """With alpha = 0 that of DPO; else the KL of the tokens is part of the logit."""
        return ImplicitReward(beta=self.beta if self.kl_share == 0 else None)


@dataclass
class IterativeDPOConfig(OnlineDPOConfig):
    """Iterative DPO: rounds of fresh responses, ranked by the annotator and learnt from by DPO (arXiv 2312.11456, 2401.10020)."""

    inert: ClassVar[Mapping[str, str]] = {
        "ranked_by=reward": "it decides who scores a batch, not what is learnt from its scores",
    }
    declines: ClassVar[Mapping[str, str]] = {
        "every_epoch_sees_each_row_once": "it learns from pairs: a response may be in several, or in none",
    }

    updates: int = 10
    """Rounds."""
    batch_size: int = 512
    """Responses of a round."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: memory only."""
    samples_per_prompt: int = bounded(4, least=2, most=1e4)
    """Responses sampled for each prompt and ranked together, 2 or more."""

    ranked_by: str = "annotator"
    """annotator: it ranks the responses to each prompt anew in every round, as it did for the reward model; reward: they are scored."""
    reference: str = "sft"
    """What log pi is compared with: sft, the model that all rounds started from (arXiv 2312.11456), or round, the policy as it stood when
    the round began (arXiv 2401.10020): beta then prices the KL of a round, and nothing bounds that of all."""
    pairs: str = "best_worst"
    """The pairs of a ranking: best_worst (the first against the last), or all of them."""
    epochs: int = bounded(1, least=1, most=1e4)
    """Passes over the pairs of a round."""
    minibatches: int = bounded(4, least=1, most=1e6)
    """Optimizer steps per epoch; prompts are kept whole."""
    missing_eos: str = "keep"
    """As in online_dpo. An annotator is told which responses were cut off; where it ranks, a penalty is in places of the ranking."""

    @property
    def asks_annotator(self) -> bool:
        return self.ranked_by == "annotator"

    @property
    def rows_with_gradients(self) -> int:
        """Both responses of each pair."""
        each = self.samples_per_prompt * (self.samples_per_prompt - 1) // 2 if self.pairs == "all" else 1
        return 2 * min(self.micro_batch_size, each * self.batch_size // self.samples_per_prompt)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, choices in (
            ("ranked_by", self.ranked_by, RANKED_BY),
            ("reference", self.reference, REFERENCES),
            ("pairs", self.pairs, PAIRS),
        ):
            if value not in choices:
                raise unknown_name(f"algo.{name}", value, choices)
        if self.labels == "soft" and self.asks_annotator:
            raise UserError(
                "algo.labels=soft reads probabilities off scores, and an annotator gives ranks: use algo.labels=hard, or "
                "algo.ranked_by=reward."
            )
