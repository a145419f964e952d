"""What RLOO and GRPO share: one update, from scored groups of responses to clipped steps."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench import REFERENCE, Policy, PolicyOptimizer, ScoredRollout, Seeds, Sequences, UpdateReport, functional
from alignbench.functional import masked_mean, require_finite
from alignbench_group.config import GroupConfig


@dataclass(frozen=True)
class Experience:
    """What the optimisation phase holds fixed. Log-probabilities are [B, R], 0 outside the response; advantages [B]; `weights` [B, R]
    are those of `functional.correction`."""

    sequences: Sequences
    logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    weights: Tensor

    def select(self, rows: Tensor) -> Experience:
        """The given rows, trimmed as Sequences.select does."""
        sequences = self.sequences.select(rows)
        width = sequences.response_mask.shape[1]
        logprobs, ref, weights = (part[rows, :width] for part in (self.logprobs, self.ref_logprobs, self.weights))
        return Experience(sequences, logprobs, ref, self.advantages[rows], weights)


@dataclass(frozen=True)
class PartLoss:
    """A loss summed over responses, and how many of its probability ratios were clipped."""

    total: Tensor
    clipped: Tensor
    ratios: Tensor


class GroupOptimizer(PolicyOptimizer[ScoredRollout]):
    """One update: compare the responses to each prompt, then epochs x minibatches clipped steps."""

    shares_batches = True

    def __init__(self, config: GroupConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        self._config, self._policy = config, policy
        self._optimizer = functional.ScheduledAdamW(config, {"policy": policy.trainable()}, updates)
        self._shuffle = seeds.torch("minibatches")

    @property
    def _kl_in_reward(self) -> bool:
        return True

    @abstractmethod
    def _advantages(self, rewards: Tensor) -> Tensor:
        """[N, k] from the rewards of N groups, [N, k]."""

    @abstractmethod
    def _loss(self, logprobs: Tensor, part: Experience) -> PartLoss:
        """The loss of some responses under the policy as it stands, whose log-probabilities [B, R] are given."""

    def update(self, batch: ScoredRollout) -> UpdateReport:
        config, samples = self._config, batch.rollout.samples
        sequences, mask = samples.sequences, samples.sequences.response_mask.bool()

        # 1. Log-probabilities under policy and reference before any step. They are recomputed rather than taken from
        #    the sampler, so that the first ratio is exactly 1.
        with torch.no_grad():
            old = self._policy.logprobs(sequences, temperature=config.temperature, entropy=True)
            ref = self._policy.logprobs(sequences, role=REFERENCE, temperature=config.temperature)
        kl = functional.sequence_kl(old.logprobs, ref.logprobs, mask)

        # 2. The reward of a response: its score, less kl_coef log(pi / pi_ref) where the penalty belongs to the reward.
        require_finite("the reward", batch.scores, hint="Check the reward source.")
        scores = functional.shape_scores(batch.scores, samples.finished, config.missing_eos, config.missing_eos_penalty)
        rewards = scores - config.kl_coef * kl if self._kl_in_reward else scores

        # 3. Advantages: each response against the others to its prompt, which are its neighbours. Equal rewards say
        #    nothing, and rounding must not be scaled up to something.
        groups = rewards.reshape(-1, config.samples_per_prompt)
        flat = groups.amax(1) == groups.amin(1)
        advantages = self._advantages(groups).masked_fill(flat[:, None], 0.0).reshape(-1)

        # 4. Clipped steps. Where an engine sampled, a token counts as the policy would have drawn it.
        correction = functional.correction(batch.rollout, old.logprobs, config)
        steps_before, learning_rate = self._optimizer.steps, self._optimizer.next_update()
        measured = self._optimise(Experience(sequences, old.logprobs, ref.logprobs, advantages, correction.weights))

        # 5. What happened; KL in nats per response.
        metrics = {
            "reward": float(batch.scores.mean()),
            "objective": float((scores - config.kl_coef * kl).mean()),
            "kl": float(kl.mean()),
            "kl_coef": config.kl_coef,
            "entropy": float(masked_mean(old.entropy, mask)) if old.entropy is not None else float("nan"),
            "length": float(mask.sum(1).float().mean()),
            "eos_rate": float(samples.finished.float().mean()),
            "groups_without_spread": float(flat.float().mean()),
            "learning_rate": learning_rate,
            **correction.figures,
            **measured,
        }
        return UpdateReport(metrics, self._optimizer.steps - steps_before)

    def _optimise(self, experience: Experience) -> dict[str, float]:
        """Makes epochs x minibatches optimizer steps; returns the mean over them of what each step measured."""
        config, totals = self._config, Counter[str]()
        parts = functional.minibatches(
            len(experience.sequences), epochs=config.epochs, count=config.minibatches, generator=self._shuffle
        )
        for minibatch in parts:
            totals.update(self._step(experience, minibatch))
        return {name: total / (config.epochs * config.minibatches) for name, total in totals.items()}

    def _step(self, experience: Experience, minibatch: Tensor) -> dict[str, float]:
        """One optimizer step on the mean loss of a minibatch's responses, gathered over micro-batches."""
        sums: Counter[str] = Counter()
        self._optimizer.zero_grad()
        for rows in functional.micro_batches(experience.sequences, minibatch, self._config.micro_batch_size):
            part = experience.select(rows)
            new = self._policy.logprobs(part.sequences, temperature=self._config.temperature).logprobs
            found = self._loss(new, part)
            require_finite("the policy loss", found.total.detach(), hint="Lower the learning rate.")
            (found.total / len(minibatch)).backward()  # type: ignore[no-untyped-call]
            sums["loss"] += float(found.total.detach()) / len(minibatch)
            sums.update(clipped=float(found.clipped), ratios=float(found.ratios))
        norms = self._optimizer.step()
        sums = functional.across_processes(sums)
        clip_fraction = sums["clipped"] / sums["ratios"]
        return {"loss": sums["loss"], "clip_fraction": clip_fraction, "gradient_norm": norms["policy"]}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict(), "shuffle": self._shuffle.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        self._shuffle.set_state(state["shuffle"])
