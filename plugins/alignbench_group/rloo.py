"""REINFORCE leave-one-out (Ahmadian et al., arXiv 2402.14740; the baseline is that of Kool et al. 2019).

A response is one action: R = score - beta log(pi / pi_ref), and the gradient is that of -A log pi(y | x), averaged over
responses. The loss is the clipped surrogate of the response's probability ratio, whose gradient at the first step of a
batch is exactly that; later steps (epochs or minibatches above 1) are corrected by the ratio and bounded as in PPO.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import ExactProblem, RolloutTerms, functional
from alignbench_group import equations
from alignbench_group.config import RLOOConfig
from alignbench_group.groups import Compared, Experience, GroupOptimizer, PartLoss, compared


class RLOO(GroupOptimizer):
    """Policy gradient on whole responses; the baseline is the mean reward of the others to the same prompt."""

    _config: RLOOConfig

    @classmethod
    def optimum(cls, config: RLOOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / kl_coef) / Z, the optimum of E[r] - kl_coef KL, whose unbiased gradient RLOO follows. None for
        kl_coef=0 (no finite optimum) and for another temperature (the policy optimised is not the one evaluated)."""
        if config.kl_coef == 0 or config.temperature != 1:
            return None
        scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
        return None if scores is None else functional.kl_optimum(problem.reference, scores, config.kl_coef)

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """Where a response that is cut off has a score of its own."""
        return ({"missing_eos": "replace", "missing_eos_penalty": 0.5},)

    @classmethod
    def stated_loss(cls, config: RLOOConfig, terms: RolloutTerms) -> Tensor:
        return equations.rloo(config, terms)

    def _compared(self, scores: Tensor, log_ratios: Tensor, mask: Tensor) -> Compared:
        rewards = scores - self._config.kl_coef * functional.masked_sum(log_ratios, mask, dim=1)
        return compared(rewards, self._config.samples_per_prompt, leave_one_out)

    def _loss(self, logprobs: Tensor, part: Experience) -> PartLoss:
        mask = part.sequences.response_mask
        # The ratio is that of the response; what each token adds to its gradient has the token's own weight.
        weighed = logprobs.detach() + part.weights * (logprobs - logprobs.detach())
        new, old = (functional.masked_sum(tokens, mask, dim=1)[:, None] for tokens in (weighed, part.logprobs))
        whole = torch.ones_like(new, dtype=torch.bool)
        loss = functional.policy_loss(new, old, part.advantages[:, None], whole, self._config.clip_ratio)
        return PartLoss(loss.total, loss.clipped, whole.sum())


def leave_one_out(rewards: Tensor) -> Tensor:
    """A_i = R_i - mean of the other k - 1 rewards of the group, [N, k]."""
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others
