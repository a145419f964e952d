"""AOT: the pairs of a batch are matched anew, by rank, before its loss is taken."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from alignbench import PairTerms, Policy, PreferenceBatch, Seeds, UpdateReport
from alignbench_dpo import equations
from alignbench_dpo.config_further import AOTConfig
from alignbench_dpo.losses import dpo_loss
from alignbench_dpo.pairs import Objective, PairwiseOptimizer, Side, measure


class AOT(PairwiseOptimizer):
    """Melnyk et al. (arXiv 2406.05882): one distribution is to dominate another in the first order, which sorting both makes a
    loss of one quantile against the other.

    No optimum is known: what is matched with what moves with the policy."""

    def __init__(self, config: AOTConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def stated_loss(cls, config: AOTConfig, terms: PairTerms) -> Tensor:
        return equations.aot(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        loss = dpo_loss(chosen.log_ratio - rejected.log_ratio, config.beta, loss=config.loss)
        return Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)

    def update(self, batch: PreferenceBatch) -> UpdateReport:
        # 1. Ranks are those of the whole batch: all log-probabilities, without gradient, whatever the micro-batches.
        with torch.no_grad():
            chosen, rejected = self._sides(batch)

        # 2. Pairs of equal rank. Where ranks stand still the sorted loss has the gradient of theirs.
        if self._config.form == "paired":
            matched = of_equal_rank(batch, chosen.logprob - rejected.logprob)
        else:
            matched = sides_of_equal_rank(batch, chosen.log_ratio, rejected.log_ratio)

        # 3. One step on them. What is logged of responses is of the pairs as they came.
        learning_rate = self._optimizer.next_update()
        step = self._step(matched, self.judge)
        as_they_came = measure(chosen, rejected, self.judge(chosen, rejected, None))
        figures = {name: total / len(batch) for name, total in as_they_came.items()}
        of_the_step = {name: step[name] for name in ("loss", "gradient_norm", "tokens")}
        return UpdateReport({**figures, **of_the_step, "learning_rate": learning_rate}, optimizer_steps=1)


def sides_of_equal_rank(batch: PreferenceBatch, chosen: Tensor, rejected: Tensor) -> PreferenceBatch:
    """The unpaired form: by these log-ratios [B], the k-th of the chosen responses with the k-th of the rejected ones."""
    better, worse = (ratio.argsort(stable=True) for ratio in (chosen, rejected))
    first, second = batch.select(better), batch.select(worse)
    return dataclasses.replace(first, rejected=second.rejected, ref_rejected=second.ref_rejected, probability=None)


def of_equal_rank(batch: PreferenceBatch, margins: Tensor) -> PreferenceBatch:
    """The paired form: each pair with the reference's log-ratio of chosen to rejected that has the rank of its own among the policy's,
    `margins` [B]. It stands in the place of the chosen response's, so that a pair's log-ratios differ by the two margins' difference."""
    assert batch.ref_chosen is not None and batch.ref_rejected is not None, "uses_reference is True"
    matched = torch.empty_like(batch.ref_chosen)
    matched[margins.argsort(stable=True)] = (batch.ref_chosen - batch.ref_rejected).sort().values
    return dataclasses.replace(batch, ref_chosen=matched, ref_rejected=torch.zeros_like(matched), probability=None)
