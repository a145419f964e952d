"""Imitating the best of n responses: RAFT (Dong et al., arXiv 2304.06767), rejection sampling of Llama 2 (2307.09288)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignbench import (
    REFERENCE,
    ExactProblem,
    Policy,
    PolicyOptimizer,
    RolloutTerms,
    ScoredRollout,
    Seeds,
    UpdateReport,
    functional,
)
from alignbench.functional import best_of_n
from alignbench_selection import equations
from alignbench_selection.config import RejectionSamplingConfig


class RejectionSampling(PolicyOptimizer[ScoredRollout]):
    """One optimizer step per batch on the negative log-likelihood of the best response to each prompt.

    It is summed over a response's tokens and averaged over responses. Divided by the tokens of the batch instead, batches
    of long winners would weigh less than batches of short ones, and the optimum would no longer be best-of-n."""

    shares_batches = True

    def __init__(self, config: RejectionSamplingConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        self._config, self._policy = config, policy
        self._optimizer = functional.ScheduledAdamW(config, {"policy": policy.trainable()}, updates)

    @classmethod
    def optimum(cls, config: RejectionSamplingConfig, problem: ExactProblem) -> Tensor | None:
        """The best-of-n distribution of the reference: cross-entropy is least where the policy is what it imitates. None
        for samples of the policy, which sharpen without end, and for those drawn at another temperature."""
        if config.samples_from != REFERENCE or config.temperature != 1:
            return None
        return best_of_n(problem.reference, problem.rewards, config.samples_per_prompt)

    @classmethod
    def stated_loss(cls, config: RejectionSamplingConfig, terms: RolloutTerms) -> Tensor:
        return equations.loss(config, terms)

    def update(self, batch: ScoredRollout) -> UpdateReport:
        learning_rate, samples = self._optimizer.next_update(), batch.rollout.samples
        functional.require_finite("the reward", batch.scores, hint="Check the reward source.")
        groups = batch.scores.reshape(-1, self._config.samples_per_prompt)
        winners = best_rows(groups)
        chosen = samples.sequences.select(winners)
        sums: Counter[str] = Counter()
        self._optimizer.zero_grad()
        for rows in functional.micro_batches(chosen, torch.arange(len(chosen)), self._config.micro_batch_size):
            part = chosen.select(rows)
            part_loss = -functional.masked_sum(self._policy.logprobs(part).logprobs, part.response_mask) / len(chosen)
            functional.require_finite("the loss", part_loss.detach(), hint="Lower the learning rate.")
            part_loss.backward()
            sums["loss"] += float(part_loss.detach())
        norms = self._optimizer.step()
        metrics = {
            "reward": float(batch.scores.mean()),
            "best_reward": float(batch.scores[winners].mean()),
            "loss": functional.across_processes(sums)["loss"],
            "length": float(chosen.response_mask.sum(1).float().mean()),
            "eos_rate": float(samples.finished[winners].float().mean()),
            "groups_without_spread": float((groups.amax(1) == groups.amin(1)).float().mean()),
            "learning_rate": learning_rate,
            "gradient_norm": norms["policy"],
        }
        return UpdateReport(metrics, optimizer_steps=1)

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state)


def best_rows(groups: Tensor) -> Tensor:
    """The row of the highest score of each group [N, k], the first of equals: which comes first is chance already."""
    return groups.argmax(1) + torch.arange(len(groups), device=groups.device) * groups.shape[1]
