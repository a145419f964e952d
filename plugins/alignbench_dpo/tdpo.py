"""TDPO: DPO whose margin also takes in how far the policy's whole distribution goes at each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from alignbench import ExactProblem, PairTerms, Policy, PreferenceBatch, Seeds, functional
from alignbench_dpo import equations
from alignbench_dpo.config_further import TDPOConfig
from alignbench_dpo.losses import sigmoid_loss, tdpo_margin
from alignbench_dpo.optimum import token_optimum
from alignbench_dpo.pairs import Objective, PairwiseOptimizer, Side, known


class TDPO(PairwiseOptimizer):
    """Zeng et al. (arXiv 2404.11999), both variants."""

    def __init__(self, config: TDPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def optimum(cls, config: TDPOConfig, problem: ExactProblem) -> Tensor | None:
        """Where every pair's own optimum is met; see `token_optimum`. With hard labels of TDPO1 for pairs=all, as of DPO; of TDPO2
        none, unless it is DPO: which side of a pair has no gradient then depends on who won, and what is left over pulls to the
        reference."""
        one_sided = config.variant == "tdpo2" and config.alpha > 0
        unbiased = config.soft_labels or (config.pairs == "all" and not one_sided)
        return token_optimum(problem, config.beta, config.kl_share) if unbiased else None

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """Both ends: all of the KL, and none, which is DPO."""
        return ({"variant": "tdpo1"}, {"alpha": 0.0})

    @classmethod
    def stated_loss(cls, config: TDPOConfig, terms: PairTerms) -> Tensor:
        return equations.tdpo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        assert chosen.reference_kl is not None and rejected.reference_kl is not None, "of _sides below"
        margin = tdpo_margin(
            chosen.log_ratio - rejected.log_ratio,
            chosen.reference_kl,
            rejected.reference_kl,
            config.kl_share,
            one_sided=config.variant == "tdpo2",
        )
        loss = sigmoid_loss(margin, config.beta, known(probability) if config.soft_labels else 1.0)
        return Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)

    def _sides(self, part: PreferenceBatch) -> tuple[Side, Side]:
        """With the KL of each response's tokens, of the same pass."""
        both = functional.stacked(part.chosen, part.rejected)
        scores, kl = self._policy.logprobs_and_reference_kl(both)
        logprobs, spent = (functional.masked_sum(each, both.response_mask, dim=1) for each in (scores.logprobs, kl))
        tokens, count = both.response_mask.sum(1), len(part)
        return (
            Side(logprobs[:count], tokens[:count], part.ref_chosen, spent[:count]),
            Side(logprobs[count:], tokens[count:], part.ref_rejected, spent[count:]),
        )
