"""Steps that are bounded without being cut off: CISPO (MiniMax, arXiv 2506.13585) and SAPO (Gao et al., arXiv 2511.20347)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import RolloutTerms, functional
from alignbench_group import equations
from alignbench_group.config import CISPOConfig, SAPOConfig
from alignbench_group.groups import Experience, PartLoss
from alignbench_group.relative import RelativeOptimizer


class CISPO(RelativeOptimizer):
    """REINFORCE on every token, weighed by a probability ratio that is bounded above and not differentiated (equation 4)."""

    _config: CISPOConfig

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """With the KL in the loss, where a mean over all tokens leaves the fixed point as it is."""
        return ({"kl_in": "loss", "scale_by_std": False},)

    @classmethod
    def stated_loss(cls, config: CISPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.cispo(config, terms)

    def _surrogate(self, logprobs: Tensor, part: Experience, weights: Tensor) -> PartLoss:
        mask, limit = part.sequences.response_mask.bool(), self._config.ratio_limit
        ratio = torch.exp(logprobs.detach() - part.logprobs)
        advantages = (weights * part.advantages)[:, None] * part.weights
        total = -functional.masked_sum(ratio.clamp(max=limit) * advantages * logprobs, mask)
        return PartLoss(total, ((ratio > limit) & mask).sum(), mask.sum())


class SAPO(RelativeOptimizer):
    """A gate on every token that closes smoothly as its probability ratio leaves 1, sooner where the advantage is negative."""

    _config: SAPOConfig

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """With the KL in the loss."""
        return ({"kl_in": "loss", "scale_by_std": False, "length_normalisation": "none"},)

    @classmethod
    def stated_loss(cls, config: SAPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.sapo(config, terms)

    def _surrogate(self, logprobs: Tensor, part: Experience, weights: Tensor) -> PartLoss:
        mask, config = part.sequences.response_mask.bool(), self._config
        advantages = part.advantages[:, None]
        tau = torch.where(advantages > 0, config.gate_positive, config.gate_negative)
        ratio = torch.exp(logprobs - part.logprobs)
        # At a ratio of 1 the slope of the gate is 1, whatever tau is.
        gate = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
        total = -functional.masked_sum(gate * weights[:, None] * advantages * part.weights, mask)
        none = torch.zeros((), device=total.device)
        return PartLoss(total, none, none)
