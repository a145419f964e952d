"""What GRPO and those that follow it share: the advantage within the group, and the KL in the loss or in the reward."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from alignbench import ExactProblem, functional
from alignbench_group.config import RelativeConfig
from alignbench_group.groups import Compared, Experience, GroupOptimizer, PartLoss, compared
from alignbench_group.optimum import grpo_optimum

ESTIMATORS = {"k1": functional.kl_k1, "k2": functional.kl_k2, "k3": functional.kl_k3}


class RelativeOptimizer(GroupOptimizer):
    """The advantage of each token is that of its response within the group. What a token's step may be is the algorithm's own."""

    _config: RelativeConfig

    @classmethod
    def optimum(cls, config: RelativeConfig, problem: ExactProblem) -> Tensor | None:
        """See `grpo_optimum`: while nothing has moved, the gradient of all of them is GRPO's."""
        scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
        return None if scores is None else grpo_optimum(config, problem, scores)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """With the KL in the reward, where it prices what a token leads to as well."""
        return {"kl_in": "reward"}

    @abstractmethod
    def _surrogate(self, logprobs: Tensor, part: Experience, weights: Tensor) -> PartLoss:
        """The sum over responses of `weights` [B] times the loss of a response without KL."""

    @property
    def _kl_in_reward(self) -> bool:
        return self._config.kl_in == "reward"

    def _compared(self, scores: Tensor, log_ratios: Tensor, mask: Tensor) -> Compared:
        config = self._config
        kl = functional.masked_sum(log_ratios, mask, dim=1)
        rewards = scores - config.kl_coef * kl if self._kl_in_reward else scores
        std_eps = config.std_eps if config.scale_by_std else None
        return compared(rewards, config.samples_per_prompt, lambda groups: group_advantages(groups, std_eps))

    def _divisor(self, experience: Experience, minibatch: Tensor) -> float:
        if self._config.divides_by == "token":
            return float((experience.lengths * experience.counted)[minibatch].sum())
        return super()._divisor(experience, minibatch)

    def _loss(self, logprobs: Tensor, part: Experience) -> PartLoss:
        config = self._config
        per_response = config.divides_by == "response"
        weights = 1 / part.lengths.clamp(min=1) if per_response else torch.ones_like(logprobs[:, 0])
        weights = weights * part.counted
        kl_coef = 0.0 if self._kl_in_reward else config.kl_coef
        return with_kl(self._surrogate(logprobs, part, weights), logprobs, part, weights, kl_coef, config.kl_estimator)


def group_advantages(rewards: Tensor, std_eps: float | None) -> Tensor:
    """A_i = R_i - mean, divided by (standard deviation + std_eps) of the group unless None: [N, k]."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred if std_eps is None else centred / (rewards.std(1, keepdim=True, correction=0) + std_eps)


def with_kl(
    found: PartLoss, logprobs: Tensor, part: Experience, weights: Tensor, kl_coef: float, estimator: str
) -> PartLoss:
    """Adds the sum over responses of `weights` [B] times kl_coef times the estimates of the KL at their tokens. These are means over
    what was sampled, and so take the weights of the sampler."""
    if kl_coef == 0:
        return found
    estimates = ESTIMATORS[estimator](logprobs, part.ref_logprobs) * part.weights
    kl = functional.masked_sum(estimates, part.sequences.response_mask, dim=1)
    return PartLoss(found.total + kl_coef * (weights * kl).sum(), found.clipped, found.ratios)
