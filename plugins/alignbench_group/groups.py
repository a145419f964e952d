"""What all of the family share: one update, from scored groups of responses to steps on the policy."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench import (
    REFERENCE,
    Policy,
    PolicyOptimizer,
    ScoredRollout,
    Seeds,
    Sequences,
    UpdateReport,
    functional,
)
from alignbench.functional import masked_mean, require_finite
from alignbench_group.config import GroupConfig


@dataclass(frozen=True)
class Experience:
    """What the optimisation phase holds fixed. Log-probabilities are [B, R], 0 outside the response; advantages [B], or [B, R] where
    those of a response's tokens differ; `weights` [B, R] are those of `functional.correction`; `counted` [B] bool: whether a
    response is learnt from."""

    sequences: Sequences
    logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    counted: Tensor

    def select(self, rows: Tensor) -> Experience:
        """The given rows, trimmed as Sequences.select does."""
        sequences = self.sequences.select(rows)
        width = sequences.response_mask.shape[1]
        logprobs, ref, weights = (part[rows, :width] for part in (self.logprobs, self.ref_logprobs, self.weights))
        advantages = self.advantages[rows] if self.advantages.dim() == 1 else self.advantages[rows, :width]
        return Experience(sequences, logprobs, ref, advantages, weights, self.counted[rows])

    @property
    def lengths(self) -> Tensor:
        """[B]: tokens of each response."""
        return self.sequences.response_mask.sum(1)


@dataclass(frozen=True)
class Compared:
    """What responses are worth beside others: advantages as in Experience, and `flat` [N], the groups whose rewards are all equal."""

    advantages: Tensor
    flat: Tensor


@dataclass(frozen=True)
class PartLoss:
    """A loss summed over responses, and how many of its probability ratios were clipped; both 0 where nothing clips."""

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

    def _rewards(self, batch: ScoredRollout, scores: Tensor) -> Tensor:
        """[B]: what responses are compared by, `scores` unless an algorithm weighs the parts that they are sums of."""
        return scores

    @abstractmethod
    def _compared(self, scores: Tensor, log_ratios: Tensor, mask: Tensor) -> Compared:
        """From the scores [B], log pi / pi_ref of the tokens [B, R] and the mask of the responses."""

    def _counted(self, flat: Tensor) -> Tensor:
        """[N]: whether a group is learnt from."""
        return torch.ones_like(flat)

    @abstractmethod
    def _loss(self, logprobs: Tensor, part: Experience) -> PartLoss:
        """The loss of some responses under the policy as it stands, whose log-probabilities [B, R] are given."""

    def _divisor(self, experience: Experience, minibatch: Tensor) -> float:
        """What the losses of a minibatch are divided by: its responses."""
        return float(experience.counted[minibatch].sum())

    def update(self, batch: ScoredRollout) -> UpdateReport:
        config, samples = self._config, batch.rollout.samples
        sequences, mask = samples.sequences, samples.sequences.response_mask.bool()

        # 1. Log-probabilities under policy and reference before any step. They are recomputed rather than taken from
        #    the sampler, so that the first ratio is exactly 1.
        with torch.no_grad():
            old = self._policy.logprobs(sequences, temperature=config.temperature, entropy=True)
            ref = self._policy.logprobs(sequences, role=REFERENCE, temperature=config.temperature)
        kl = functional.sequence_kl(old.logprobs, ref.logprobs, mask)

        # 2. Scores, after the missing-EOS rule.
        require_finite("the reward", batch.scores, hint="Check the reward source.")
        scores = functional.shape_scores(batch.scores, samples.finished, config.missing_eos, config.missing_eos_penalty)

        # 3. Advantages: each response beside the others to its prompt, which are its neighbours.
        worth = self._compared(self._rewards(batch, scores), old.logprobs - ref.logprobs, mask)
        counted = self._counted(worth.flat).repeat_interleave(config.samples_per_prompt)

        # 4. Steps. Where an engine sampled, a token counts as the policy would have drawn it.
        correction = functional.correction(batch.rollout, old.logprobs, config)
        steps_before, learning_rate = self._optimizer.steps, self._optimizer.next_update()
        measured = self._optimise(
            Experience(sequences, old.logprobs, ref.logprobs, worth.advantages, correction.weights, counted)
        )

        # 5. What happened; KL in nats per response.
        metrics = {
            "reward": float(batch.scores.mean()),
            "objective": float((scores - config.kl_coef * kl).mean()),
            "kl": float(kl.mean()),
            "kl_coef": config.kl_coef,
            "entropy": float(masked_mean(old.entropy, mask)) if old.entropy is not None else float("nan"),
            "length": float(mask.sum(1).float().mean()),
            "eos_rate": float(samples.finished.float().mean()),
            "groups_without_spread": float(worth.flat.float().mean()),
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
        """One optimizer step on the mean loss of a minibatch, gathered over micro-batches."""
        sums: Counter[str] = Counter()
        divisor = max(self._divisor(experience, minibatch), 1.0)
        self._optimizer.zero_grad()
        for rows in functional.micro_batches(experience.sequences, minibatch, self._config.micro_batch_size):
            part = experience.select(rows)
            new = self._policy.logprobs(part.sequences, temperature=self._config.temperature).logprobs
            found = self._loss(new, part)
            require_finite("the policy loss", found.total.detach(), hint="Lower the learning rate.")
            (found.total / divisor).backward()  # type: ignore[no-untyped-call]
            sums["loss"] += float(found.total.detach()) / divisor
            sums.update(clipped=float(found.clipped), ratios=float(found.ratios))
        norms = self._optimizer.step()
        sums = functional.across_processes(sums)
        clipped = {"clip_fraction": sums["clipped"] / sums["ratios"]} if sums["ratios"] else {}
        return {"loss": sums["loss"], **clipped, "gradient_norm": norms["policy"]}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict(), "shuffle": self._shuffle.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        self._shuffle.set_state(state["shuffle"])


def compared(rewards: Tensor, size: int, advantages: Callable[[Tensor], Tensor]) -> Compared:
    """Of rewards [B] in groups of `size`: `advantages` of [N, size], and exactly 0 where a group's rewards are all equal. They say
    nothing, and rounding must not be scaled up to something."""
    groups = rewards.reshape(-1, size)
    flat = without_spread(groups)
    return Compared(advantages(groups).masked_fill(flat[:, None], 0.0).reshape(-1), flat)


def without_spread(groups: Tensor) -> Tensor:
    """[N]: whether all of a group's rewards [N, k] are equal."""
    return groups.amax(1) == groups.amin(1)
