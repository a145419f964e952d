"""REINFORCE++ and REINFORCE++ with a baseline (Hu et al., arXiv 2501.03262)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from alignbench import ExactProblem, RolloutTerms, functional
from alignbench_group import equations
from alignbench_group.config import ReinforcePPBaselineConfig, ReinforcePPConfig
from alignbench_group.groups import Compared, Experience, GroupOptimizer, PartLoss, without_spread
from alignbench_group.grpo import clipped_tokens
from alignbench_group.relative import with_kl


class ReinforcePP(GroupOptimizer):
    """Clipped steps on tokens. A token's return is the score less the KL of the tokens from it on; advantages are the returns of all tokens
    of the batch, to mean 0 and variance 1."""

    _config: ReinforcePPConfig | ReinforcePPBaselineConfig

    @classmethod
    def optimum(cls, config: ReinforcePPConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / kl_coef) / Z in the limit of large batches, whose mean and deviation no response moves: there r - kl_coef log(pi /
        pi_ref) of a whole response is constant, so that what a token is paid depends on the tokens before it alone. None for kl_coef=0
        (no finite optimum) and for another temperature (the policy optimised is not the one evaluated)."""
        return cls._tilted(config, problem, 1.0)

    @classmethod
    def stated_loss(cls, config: ReinforcePPConfig, terms: RolloutTerms) -> Tensor:
        return equations.reinforce_pp(config, terms)

    @classmethod
    def _tilted(
        cls, config: ReinforcePPConfig | ReinforcePPBaselineConfig, problem: ExactProblem, share: float
    ) -> Tensor | None:
        scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
        if scores is None or config.kl_coef == 0 or config.temperature != 1:
            return None
        return functional.kl_optimum(problem.reference, share * scores, config.kl_coef)

    @property
    def _kl_in_reward(self) -> bool:
        return True

    def _worth(self, groups: Tensor) -> Tensor:
        """[N, k] from the scores of N groups, before the batch is normalised."""
        return groups

    def _compared(self, scores: Tensor, log_ratios: Tensor, mask: Tensor) -> Compared:
        groups = scores.reshape(-1, self._config.samples_per_prompt)
        flat = (groups.amax(1) == groups.amin(1)) & (groups.shape[1] > 1)
        returns = self._worth(groups).reshape(-1, 1).expand_as(log_ratios)
        if self._kl_in_reward:
            paid = torch.where(mask, log_ratios, torch.zeros_like(log_ratios))
            returns = returns - self._config.kl_coef * paid.flip(1).cumsum(1).flip(1)
        seen = returns[mask]
        if bool(seen.amax() == seen.amin()):  # rounding must not be scaled up to something
            return Compared(torch.zeros_like(returns), flat)
        return Compared(functional.masked_whiten(returns, mask), flat)

    def _divisor(self, experience: Experience, minibatch: Tensor) -> float:
        """Tokens: what a token is paid would otherwise depend on how long its response becomes."""
        return float(experience.lengths[minibatch].sum())

    def _loss(self, logprobs: Tensor, part: Experience) -> PartLoss:
        ones = torch.ones_like(logprobs[:, 0])
        found = clipped_tokens(logprobs, part, ones, self._config.clip_ratio, None)
        return with_kl(found, logprobs, part, ones, 0.0 if self._kl_in_reward else self._config.kl_coef, "k2")


class ReinforcePPBaseline(ReinforcePP):
    """The mean score of the group is taken off first, and the KL stands in the loss."""

    _config: ReinforcePPBaselineConfig

    @classmethod
    def optimum(cls, config: ReinforcePPBaselineConfig, problem: ExactProblem) -> Tensor | None:  # type: ignore[override]
        """With the KL in the reward as REINFORCE++, at (k - 1) / k of the scores: a mean that holds the response itself takes 1 / k of its
        score off, and nothing off its KL. With k2 in the loss none: a deterministic policy is a second resting point, for scaled
        advantages keep their size as the spread vanishes."""
        share = 1 - 1 / config.samples_per_prompt
        return None if config.kl_in == "loss" else cls._tilted(config, problem, share)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """With the KL in the reward, where theory gives an optimum."""
        return {"kl_in": "reward"}

    @classmethod
    def stated_loss(cls, config: ReinforcePPBaselineConfig, terms: RolloutTerms) -> Tensor:  # type: ignore[override]
        return equations.reinforce_pp_baseline(config, terms)

    @property
    def _kl_in_reward(self) -> bool:
        return self._config.kl_in == "reward"

    def _worth(self, groups: Tensor) -> Tensor:
        centred = groups - groups.mean(1, keepdim=True)
        return centred.masked_fill(without_spread(groups)[:, None], 0.0)  # rounding must not be scaled up to something
