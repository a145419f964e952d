"""The loop that every algorithm of the family shares: one optimizer step on the mean loss of a batch of pairs."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench import (
    OptimizerConfig,
    Policy,
    PolicyOptimizer,
    PreferenceBatch,
    PreferenceConfig,
    Seeds,
    UpdateReport,
    UserError,
    functional,
)


@dataclass(frozen=True)
class Side:
    """One response of each pair, [b]: its summed log-probabilities under the policy and, where it is used, the reference; and, where it
    is asked for, the sum of KL(pi_ref || pi) at its tokens."""

    logprob: Tensor
    tokens: Tensor
    ref_logprob: Tensor | None
    reference_kl: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """log pi(y|x) / |y|, nats per token."""
        return self.logprob / self.tokens.clamp(min=1)

    @property
    def log_ratio(self) -> Tensor:
        """log pi(y|x) / pi_ref(y|x), nats per response."""
        assert self.ref_logprob is not None, "uses_reference is True"
        return self.logprob - self.ref_logprob


@dataclass(frozen=True)
class Objective:
    """What an algorithm makes of some pairs, [b]: the loss, and the implicit reward of each response for the log."""

    loss: Tensor
    reward_chosen: Tensor
    reward_rejected: Tensor


Judge = Callable[[Side, Side, Tensor | None], Objective]
"""(chosen, rejected, P(chosen preferred) where it is known) -> Objective."""


class Learner(PolicyOptimizer[Any]):
    """AdamW on the policy, one step per batch, gathered over micro-batches."""

    shares_batches = True

    def __init__(self, config: OptimizerConfig, policy: Policy, updates: int, *, temperature: float = 1.0) -> None:
        self._policy, self._micro_batch_size, self._temperature = policy, config.micro_batch_size, temperature
        self._optimizer = functional.ScheduledAdamW(config, {"policy": policy.trainable()}, updates)

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state)


class PairLearner(Learner):
    """One step per batch of pairs, whatever makes the pairs."""

    def _step(self, batch: PreferenceBatch, judge: Judge) -> dict[str, float]:
        """One optimizer step on the mean loss of the batch's pairs; returns means over its pairs."""
        sums: Counter[str] = Counter()
        self._optimizer.zero_grad()
        for rows in functional.micro_batches(batch.chosen, torch.arange(len(batch)), self._micro_batch_size):
            part = batch.select(rows)
            chosen, rejected = self._sides(part)
            objective = judge(chosen, rejected, part.probability)
            functional.require_finite("the preference loss", objective.loss.detach(), hint="Lower the learning rate.")
            # Divided by the pairs of the whole batch: the step does not depend on micro_batch_size.
            (objective.loss.sum() / len(batch)).backward()
            sums.update(measure(chosen, rejected, objective))
        norms = self._optimizer.step()
        sums = functional.across_processes(sums)
        means = {name: total / len(batch) for name, total in sums.items()}
        tokens = batch.chosen.response_mask.sum() + batch.rejected.response_mask.sum()
        return {**means, "gradient_norm": norms["policy"], "tokens": float(tokens)}

    def _sides(self, part: PreferenceBatch) -> tuple[Side, Side]:
        """Both in one pass: a policy may read their prompt once."""
        both = functional.stacked(part.chosen, part.rejected)
        logprobs = functional.summed_logprobs(self._policy, both, temperature=self._temperature)
        tokens, count = both.response_mask.sum(1), len(part)
        return (
            Side(logprobs[:count], tokens[:count], part.ref_chosen),
            Side(logprobs[count:], tokens[count:], part.ref_rejected),
        )


class PairwiseOptimizer(PairLearner):
    """An algorithm whose loss needs nothing but a pair: it says what it makes of pairs, the rest is shared."""

    def __init__(self, config: PreferenceConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy, updates)

    @abstractmethod
    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        """The loss of each pair, and the implicit rewards behind it."""

    def update(self, batch: PreferenceBatch) -> UpdateReport:
        learning_rate = self._optimizer.next_update()
        return UpdateReport({**self._step(batch, self.judge), "learning_rate": learning_rate}, optimizer_steps=1)


def measure(chosen: Side, rejected: Side, objective: Objective) -> dict[str, float]:
    """Sums over pairs of what is logged. Log-ratios are nats per response, on given responses: a KL only where the
    policy itself sampled them."""
    margin = objective.reward_chosen - objective.reward_rejected
    figures = {
        "loss": objective.loss,
        "accuracy": (margin > 0).float(),
        "margin": margin,
        "reward_chosen": objective.reward_chosen,
        "reward_rejected": objective.reward_rejected,
        "logprob_chosen": chosen.logprob,
        "logprob_rejected": rejected.logprob,
    }
    if chosen.ref_logprob is not None:
        figures |= {"log_ratio_chosen": chosen.log_ratio, "log_ratio_rejected": rejected.log_ratio}
    if chosen.reference_kl is not None and rejected.reference_kl is not None:
        figures |= {"reference_kl_chosen": chosen.reference_kl, "reference_kl_rejected": rejected.reference_kl}
    return {name: float(values.detach().sum()) for name, values in figures.items()}


def known(probability: Tensor | None) -> Tensor:
    if probability is None:
        raise UserError(
            "algo.soft_labels=true needs the annotator's own probabilities, and this annotator does not know them: set "
            "algo.soft_labels=false, or choose an annotator that does, such as annotator=mild, whose ratings do not tie."
        )
    return probability
