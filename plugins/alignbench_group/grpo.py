"""Group relative policy optimisation (Shao et al., arXiv 2402.03300), Dr. GRPO (Liu et al., arXiv 2503.20783), and DAPO (Yu et al.,
arXiv 2503.14476).

Dr. GRPO is `scale_by_std=false length_normalisation=none`: dividing by the standard deviation weighs easy and hard
prompts up, dividing by the length lets long wrong responses off lightly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import ExactProblem, RolloutTerms, functional
from alignbench_group import equations
from alignbench_group.config import DAPOConfig, GRPOConfig
from alignbench_group.groups import Compared, Experience, PartLoss, without_spread
from alignbench_group.optimum import grpo_optimum
from alignbench_group.relative import RelativeOptimizer


class GRPO(RelativeOptimizer):
    """Clipped steps on tokens."""

    _config: GRPOConfig

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

    def _surrogate(self, logprobs: Tensor, part: Experience, weights: Tensor) -> PartLoss:
        return clipped_tokens(logprobs, part, weights, self._config.clip_ratio, self._config.clip_ratio_high)


class DAPO(GRPO):
    """GRPO with a higher upper clip, a mean over all tokens, no groups without spread, and a price on the longest responses."""

    _config: DAPOConfig

    @classmethod
    def optimum(cls, config: DAPOConfig, problem: ExactProblem) -> Tensor | None:
        """GRPO's, of scores that fall towards the longest completion. None with the KL in the loss where groups without spread are left
        out and advantages are not scaled: their KL goes with them, more of it the likelier the others of a group score alike."""
        if config.kl_in == "loss" and config.leave_out_flat and not config.scale_by_std:
            return None
        scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
        if scores is None:
            return None
        lengths = torch.tensor([len(completion) for completion in problem.completions]).to(scores)
        return grpo_optimum(config, problem, scores - overlong(lengths, float(lengths.max()), config))

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """With the KL in the loss, and where more lengths have a price."""
        return (
            {"kl_in": "loss", "scale_by_std": False, "leave_out_flat": False},
            {"overlong_buffer": 0.8, "overlong_penalty": 1.5},
        )

    @classmethod
    def stated_loss(cls, config: DAPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.dapo(config, terms)

    def _compared(self, scores: Tensor, log_ratios: Tensor, mask: Tensor) -> Compared:
        """With soft overlong punishment (equation 13). Whether a group has spread, its scores say without it (equation 11)."""
        lengths, longest = mask.sum(1).to(scores), self._policy.max_response_tokens
        worth = super()._compared(scores - overlong(lengths, longest, self._config), log_ratios, mask)
        return Compared(worth.advantages, without_spread(scores.reshape(-1, self._config.samples_per_prompt)))

    def _counted(self, flat: Tensor) -> Tensor:
        return ~flat if self._config.leave_out_flat else torch.ones_like(flat)


def overlong(lengths: Tensor, longest: float, config: DAPOConfig) -> Tensor:
    """What a response pays for its length: nothing up to the buffer, and linearly more to its end."""
    buffer = config.overlong_buffer * longest
    return config.overlong_penalty * ((lengths - (longest - buffer)) / buffer).clamp(0, 1)


def clipped_tokens(
    logprobs: Tensor, part: Experience, weights: Tensor, clip_ratio: float, clip_ratio_high: float | None
) -> PartLoss:
    """Sum over responses of w times the sum over tokens of the clipped loss; weights [B]."""
    mask = part.sequences.response_mask.bool()
    advantages = part.advantages if part.advantages.dim() == 2 else part.advantages[:, None]
    # A weight of 0 or more passes through the minimum of the clipped loss, so it may sit on the advantage.
    advantages = weights[:, None] * advantages * part.weights
    loss = functional.policy_loss(logprobs, part.logprobs, advantages, mask, clip_ratio, clip_ratio_high)
    return PartLoss(loss.total, loss.clipped, mask.sum())
