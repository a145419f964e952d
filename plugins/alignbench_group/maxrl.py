"""Maximum likelihood reinforcement learning (Tajwar, Zeng et al., arXiv 2602.02710)."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import ExactProblem, RolloutTerms, functional
from alignbench_group import equations
from alignbench_group.config import MaxRLConfig
from alignbench_group.groups import Compared, Experience, GroupOptimizer, PartLoss, compared
from alignbench_group.grpo import clipped_tokens
from alignbench_group.optimum import maxrl_optimum
from alignbench_group.rloo import leave_one_out


class MaxRL(GroupOptimizer):
    """Clipped steps on tokens. The advantage of a response is its success less the group's rate of success, divided by that rate."""

    _config: MaxRLConfig

    @classmethod
    def optimum(cls, config: MaxRLConfig, problem: ExactProblem) -> Tensor | None:
        """See `maxrl_optimum`."""
        return maxrl_optimum(config, problem)

    @classmethod
    def stated_loss(cls, config: MaxRLConfig, terms: RolloutTerms) -> Tensor:
        return equations.maxrl(config, terms)

    def _compared(self, scores: Tensor, log_ratios: Tensor, mask: Tensor) -> Compared:
        config, k = self._config, self._config.samples_per_prompt
        worth = compared((scores > config.success_above).to(scores), k, over_rate)
        # The penalty is no success that a rate could be taken of: it has RLOO's baseline, which is unbiased.
        kl = functional.masked_sum(log_ratios, mask, dim=1)
        penalty = leave_one_out(config.kl_coef * kl.reshape(-1, k)).reshape(-1)
        return Compared(worth.advantages - penalty, worth.flat)

    def _loss(self, logprobs: Tensor, part: Experience) -> PartLoss:
        return clipped_tokens(logprobs, part, torch.ones_like(logprobs[:, 0]), self._config.clip_ratio, None)


def over_rate(successes: Tensor) -> Tensor:
    """(r_i - mean) / mean of a group's successes, 0 or 1, [N, k]; 0 where none succeeds."""
    rate = successes.mean(1, keepdim=True)
    return (successes - rate) / torch.where(rate > 0, rate, torch.ones_like(rate))
