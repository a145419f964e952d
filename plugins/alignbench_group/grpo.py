"""Group relative policy optimisation (Shao et al., arXiv 2402.03300), and Dr. GRPO (Liu et al., arXiv 2503.20783).

Dr. GRPO is `scale_by_std=false length_normalisation=none`: dividing by the standard deviation weighs easy and hard
prompts up, dividing by the length lets long wrong responses off lightly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import ExactProblem, RolloutTerms, functional
from alignbench_group import equations
from alignbench_group.config import GRPOConfig
from alignbench_group.groups import Experience, GroupOptimizer, PartLoss
from alignbench_group.optimum import grpo_optimum

ESTIMATORS = {"k1": functional.kl_k1, "k2": functional.kl_k2, "k3": functional.kl_k3}


class GRPO(GroupOptimizer):
    """Clipped steps on tokens; the advantage of each is that of its response within the group."""

    _config: GRPOConfig

    @classmethod
    def optimum(cls, config: GRPOConfig, problem: ExactProblem) -> Tensor | None:
        """See `grpo_optimum`."""
        return grpo_optimum(config, problem)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """With the KL in the reward, where it prices what a token leads to as well."""
        return {"kl_in": "reward"}

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """With the KL in the loss, where it prices each token by itself; and where the end of a response counts otherwise."""
        in_loss = {"kl_in": "loss", "scale_by_std": False, "length_normalisation": "none"}
        return (
            {**in_loss, "kl_estimator": "k3"},
            {**in_loss, "kl_estimator": "k2"},
            {"missing_eos": "replace", "missing_eos_penalty": 0.5},
        )

    @classmethod
    def stated_loss(cls, config: GRPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.grpo(config, terms)

    @property
    def _kl_in_reward(self) -> bool:
        return self._config.kl_in == "reward"

    def _advantages(self, rewards: Tensor) -> Tensor:
        return group_advantages(rewards, self._config.std_eps if self._config.scale_by_std else None)

    def _loss(self, logprobs: Tensor, part: Experience) -> PartLoss:
        config, lengths = self._config, part.sequences.response_mask.sum(1).clamp(min=1)
        per_response = config.length_normalisation == "response"
        weights = 1 / lengths if per_response else torch.ones_like(lengths, dtype=logprobs.dtype)
        kl_coef = 0.0 if self._kl_in_reward else config.kl_coef
        return grpo_loss(logprobs, part, weights, config.clip_ratio, kl_coef, config.kl_estimator)


def group_advantages(rewards: Tensor, std_eps: float | None) -> Tensor:
    """A_i = R_i - mean, divided by (standard deviation + std_eps) of the group unless None: [N, k]."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred if std_eps is None else centred / (rewards.std(1, keepdim=True, correction=0) + std_eps)


def grpo_loss(
    logprobs: Tensor, part: Experience, weights: Tensor, clip_ratio: float, kl_coef: float, estimator: str
) -> PartLoss:
    """Sum over responses of w times the sum over tokens of the clipped loss + kl_coef KL (equation 3); weights [B]. Both are means over
    what was sampled, so that both take the tokens' own weights, those of the sampler."""
    mask = part.sequences.response_mask.bool()
    # A weight above 0 passes through the minimum of the clipped loss, so it may sit on the advantage.
    advantages = (weights * part.advantages)[:, None] * part.weights
    loss = functional.policy_loss(logprobs, part.logprobs, advantages, mask, clip_ratio)
    total = loss.total
    if kl_coef > 0:
        estimates = ESTIMATORS[estimator](logprobs, part.ref_logprobs) * part.weights
        kl = functional.masked_sum(estimates, mask, dim=1)
        total = total + kl_coef * (weights * kl).sum()
    return PartLoss(total, loss.clipped, mask.sum())
