"""Group reward-decoupled normalisation policy optimisation (Liu et al., arXiv 2601.05242)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import ExactProblem, RewardParts, RolloutTerms, ScoredRollout, functional
from alignbench_group import equations
from alignbench_group.config import GDPOConfig
from alignbench_group.groups import Compared, compared
from alignbench_group.grpo import GRPO
from alignbench_group.optimum import grpo_optimum
from alignbench_group.relative import group_advantages

log = logging.getLogger(__name__)

WHOLE, MISSING_EOS = "score", "missing EOS"


class GDPO(GRPO):
    """GRPO whose group normalises each part of the reward by itself. Summed first, parts of other sizes and combinations that add up to
    the same would no longer be told apart."""

    _config: GDPOConfig
    _told = False

    @classmethod
    def optimum(cls, config: GDPOConfig, problem: ExactProblem) -> Tensor | None:  # type: ignore[override]
        """GRPO's, where parts are not divided by deviations that depend on the policy: their weighted sum is then the score. The batch's
        deviation divides an advantage that is 0 at pi*, its KL included; with the KL in the loss none is stated beside it, as the price
        of a nat then depends on all prompts."""
        if config.scale_by_std or (config.kl_in == "loss" and config.scale_by_batch):
            return None
        scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
        return None if scores is None else grpo_optimum(config, problem, scores)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """With the KL in the reward, and parts as large as they are."""
        return {"kl_in": "reward", "scale_by_std": False}

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """With the KL in the loss; and where the end of a response counts otherwise."""
        return (
            {"kl_in": "loss", "scale_by_batch": False, "length_normalisation": "none"},
            {"missing_eos": "replace", "missing_eos_penalty": 0.5},
        )

    @classmethod
    def stated_loss(cls, config: GDPOConfig, terms: RolloutTerms) -> Tensor:  # type: ignore[override]
        return equations.gdpo(config, terms)

    def _rewards(self, batch: ScoredRollout, scores: Tensor) -> Tensor:
        """The weighted sum of what each part is worth within the group."""
        if batch.parts is None and not self._told:
            log.warning(
                "algo=gdpo: the reward gives one number and no parts, as reward=mix does: there is nothing to decouple."
            )
            self._told = True
        config = self._config
        parts = batch.parts or RewardParts((WHOLE,), (1.0,), batch.scores[:, None])
        parts = ended(parts, batch.rollout.samples.finished, config)
        std_eps = config.std_eps if config.scale_by_std else None
        worth = [
            compared(part, config.samples_per_prompt, lambda groups: group_advantages(groups, std_eps)).advantages
            for part in parts.values.unbind(1)
        ]
        return RewardParts(parts.names, parts.weights, torch.stack(worth, 1)).total()

    def _compared(self, scores: Tensor, log_ratios: Tensor, mask: Tensor) -> Compared:
        """Over the batch, what the parts add up to is brought to a deviation of 1; its mean is 0 already."""
        config = self._config
        kl = functional.masked_sum(log_ratios, mask, dim=1)
        rewards = scores - config.kl_coef * kl if self._kl_in_reward else scores
        worth = compared(rewards, config.samples_per_prompt, lambda groups: group_advantages(groups, None))
        if not config.scale_by_batch:
            return worth
        return Compared(worth.advantages / (worth.advantages.std(correction=0) + config.std_eps), worth.flat)


def ended(parts: RewardParts, finished: Tensor, config: GDPOConfig) -> RewardParts:
    """A response that was cut off pays in a part of its own, which other parts cannot outweigh by their size alone."""
    if config.missing_eos == "keep":
        return parts
    values = parts.values * finished[:, None] if config.missing_eos == "replace" else parts.values
    cut = (~finished).to(values)[:, None]
    return RewardParts(
        (*parts.names, MISSING_EOS), (*parts.weights, config.missing_eos_penalty), torch.cat([values, -cut], 1)
    )
