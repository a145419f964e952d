"""REINFORCE (Williams 1992) on the KL-regularised objective, the whole response being one action.

The gradient of J = E[r] - beta KL(pi || pi_ref) is E[(r - beta log(pi / pi_ref) - b) grad log pi], where the logarithms
sum over the response and b is any number that does not depend on it. One step per batch keeps this on-policy, so there
is no ratio and nothing to clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from alignbench import REFERENCE, ExactProblem, Policy, PolicyOptimizer, ScoredRollout, Seeds, UpdateReport, functional
from alignbench_example.config import ReinforceConfig


class Reinforce(PolicyOptimizer[ScoredRollout]):
    """One optimizer step per batch of rollouts."""

    shares_batches = True

    def __init__(self, config: ReinforceConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        self._config, self._policy = config, policy
        self._optimizer = functional.ScheduledAdamW(config, {"policy": policy.trainable()}, updates)

    @classmethod
    def optimum(cls, config: ReinforceConfig, problem: ExactProblem) -> torch.Tensor | None:
        """pi_ref exp(r / kl_coef) / Z: what maximises J, where it is finite."""
        if config.kl_coef == 0 or config.temperature != 1:
            return None
        return torch.softmax(problem.reference.log() + problem.rewards / config.kl_coef, 1)

    def update(self, batch: ScoredRollout) -> UpdateReport:
        config, rollout, sequences = self._config, batch.rollout, batch.rollout.samples.sequences
        functional.require_finite("the reward", batch.scores, hint="Check the reward source.")

        # 1. The return of a response: its score, less the price of the KL that it cost, in nats per response.
        #    Of both by a pass: a sampler's rounding would pass for a KL.
        with torch.no_grad():
            own = self._policy.logprobs(sequences, temperature=rollout.temperature).logprobs
            reference = self._policy.logprobs(sequences, role=REFERENCE, temperature=rollout.temperature).logprobs
        kl = functional.sequence_kl(own, reference, sequences.response_mask)
        returns = batch.scores - config.kl_coef * kl

        # 2. The baseline is the mean of the batch. It holds the response itself, which scales the expected gradient
        #    by (B - 1) / B and leaves its direction alone.
        advantages = returns - returns.mean()

        # 3. One step on -E[advantage * log pi(response)], its gradient gathered over micro-batches.
        learning_rate = self._optimizer.next_update()
        self._optimizer.zero_grad()
        sums = {"loss": 0.0, "entropy": 0.0}
        for rows in functional.micro_batches(sequences, torch.arange(len(sequences)), config.micro_batch_size):
            part = sequences.select(rows)
            scores = self._policy.logprobs(part, temperature=rollout.temperature, entropy=True)
            log_pi = functional.masked_sum(scores.logprobs, part.response_mask, dim=1)
            part_loss = -(advantages[rows] * log_pi).sum() / len(sequences)
            functional.require_finite("the REINFORCE loss", part_loss.detach(), hint="Lower the learning rate.")
            part_loss.backward()
            sums["loss"] += float(part_loss.detach())
            assert scores.entropy is not None
            sums["entropy"] += float(functional.masked_sum(scores.entropy, part.response_mask))
        norms = self._optimizer.step()
        figures = functional.across_processes(sums)  # several processes may share a batch

        tokens = float(sequences.response_mask.sum())
        metrics = {
            "reward": float(batch.scores.mean()),
            "kl": float(kl.mean()),
            "loss": figures["loss"],
            "entropy": figures["entropy"] / tokens,
            "length": tokens / len(sequences),
            "eos_rate": float(rollout.samples.finished.float().mean()),
            "gradient_norm": norms["policy"],
            "learning_rate": learning_rate,
        }
        return UpdateReport(metrics, optimizer_steps=1)

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state)
