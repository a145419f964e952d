"""Group sequence policy optimisation (Zheng et al., arXiv 2507.18071)."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import RolloutTerms, functional
from alignbench_group import equations
from alignbench_group.config import GSPOConfig
from alignbench_group.groups import Experience, PartLoss
from alignbench_group.relative import RelativeOptimizer


class GSPO(RelativeOptimizer):
    """Clipped steps on responses, whose ratio is the geometric mean of their tokens' (equations 5 to 7)."""

    _config: GSPOConfig

    @classmethod
    def stated_loss(cls, config: GSPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.gspo(config, terms)

    def _surrogate(self, logprobs: Tensor, part: Experience, weights: Tensor) -> PartLoss:
        # `weights` is 1 / |y|: the ratio has that mean inside.
        mask, config = part.sequences.response_mask, self._config
        # What each token adds to the gradient of the ratio has the token's own weight.
        weighed = logprobs.detach() + part.weights * (logprobs - logprobs.detach())
        new, old = (functional.masked_mean(tokens, mask, dim=1)[:, None] for tokens in (weighed, part.logprobs))
        whole = torch.ones_like(new, dtype=torch.bool)
        advantages = part.advantages[:, None]
        loss = functional.policy_loss(new, old, advantages, whole, config.clip_ratio, config.clip_ratio_high)
        return PartLoss(loss.total, loss.clipped, whole.sum())
