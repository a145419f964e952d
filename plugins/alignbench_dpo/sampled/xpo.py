"""XPO: online DPO that explores (Xie et al., arXiv 2405.21046)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import ExactProblem, Policy, RolloutTerms, ScoredRollout, Seeds, UpdateReport, functional
from alignbench_dpo.losses import sigmoid_loss
from alignbench_dpo.pairs import Objective, PairLearner, Side, known
from alignbench_dpo.sampled import equations
from alignbench_dpo.sampled.config import XPOConfig
from alignbench_dpo.sampled.equilibrium import optimistic
from alignbench_dpo.sampled.pairs import compared

NAMES = {
    "logprob_chosen": "logprob_own",
    "logprob_rejected": "logprob_reference",
    "log_ratio_chosen": "log_ratio_own",
    "log_ratio_rejected": "log_ratio_reference",
}
"""A pair is here the policy's response and the reference's, whichever is preferred."""


class XPO(PairLearner):
    """One step per rollout, on pairs of one response of the policy and one of the reference."""

    def __init__(self, config: XPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy, updates, temperature=config.temperature)
        self._config = config

    @classmethod
    def optimum(cls, config: XPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / beta) / Z for alpha = 0, as of online DPO; with optimism the policy at which both parts of the gradient cancel,
        see `optimistic`. With soft labels alone: with hard ones no margin is enough."""
        if config.labels != "soft" or config.temperature != 1:
            return None
        scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
        return None if scores is None else optimistic(problem.reference, scores, config.beta, config.alpha)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """With soft labels: a better response that always wins is never far enough ahead."""
        return {"labels": "soft"}

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """Where a response that is cut off has a score of its own."""
        return ({"missing_eos": "replace", "missing_eos_penalty": 0.5},)

    @classmethod
    def stated_loss(cls, config: XPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.xpo(config, terms)

    def update(self, batch: ScoredRollout) -> UpdateReport:
        found = compared(self._policy, self._config, batch)
        learning_rate = self._optimizer.next_update()
        step = self._step(found.preferences(by_score=False), self._judge)
        step = {NAMES.get(name, name): value for name, value in step.items()}
        return UpdateReport({**found.figures, **step, "learning_rate": learning_rate}, optimizer_steps=1)

    def _judge(self, own: Side, reference: Side, probability: Tensor | None) -> Objective:
        config, wins = self._config, known(probability)
        loss = sigmoid_loss(own.log_ratio - reference.log_ratio, config.beta, wins) + config.alpha * reference.logprob
        rewards = config.beta * own.log_ratio, config.beta * reference.log_ratio
        better = wins >= 0.5
        return Objective(loss, torch.where(better, *rewards), torch.where(better, *rewards[::-1]))
