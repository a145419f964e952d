"""Iterative DPO: online DPO in large rounds, each ranked by the annotator and learnt from in several steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignbench import (
    ExactProblem,
    Policy,
    PreferenceBatch,
    RolloutTerms,
    ScoredRollout,
    Seeds,
    UpdateReport,
    functional,
)
from alignbench_dpo import equations
from alignbench_dpo.config import OnlineDPOConfig
from alignbench_dpo.config_further import IterativeDPOConfig
from alignbench_dpo.online import OnlineDPO, Pairs


class IterativeDPO(OnlineDPO):
    """Xiong et al. (arXiv 2312.11456) with the SFT model as reference, Yuan et al. (arXiv 2401.10020) with the round's own start.

    An update is a round. Scores are minus the ranks where the annotator ranks."""

    def __init__(self, config: IterativeDPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._round, self._rng = config, seeds.torch("minibatches")

    @classmethod
    def optimum(cls, config: OnlineDPOConfig, problem: ExactProblem) -> Tensor | None:
        """With the SFT model as reference, pi_ref exp(r / beta) / Z: with soft labels as of online DPO; with hard ones where the
        annotator's rankings are Plackett-Luce and all of their pairs are learnt from, as of DPO. None with the round's own start as
        reference: each round adds to what the last one learnt, without end."""
        assert isinstance(config, IterativeDPOConfig)
        if config.reference != "sft":
            return None
        if not config.asks_annotator:
            return super().optimum(config, problem)
        plain = config.loss in ("sigmoid", "robust") and not config.label_smoothing
        drawn = config.pairs == "all" and config.temperature == 1 and config.missing_eos == "keep"
        return functional.kl_optimum(problem.reference, problem.rewards, config.beta) if plain and drawn else None

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """From scores, which say how sure a label is."""
        return {"ranked_by": "reward", "labels": "soft"}

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """Every pair of a ranking, and several passes over a round."""
        return ({"pairs": "all", "epochs": 2},)

    @classmethod
    def stated_loss(cls, config: OnlineDPOConfig, terms: RolloutTerms) -> Tensor:
        assert isinstance(config, IterativeDPOConfig)
        return equations.iterative_dpo(config, terms)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "minibatches": self._rng.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._rng.set_state(state["minibatches"])

    def update(self, batch: ScoredRollout) -> UpdateReport:
        report = super().update(batch)
        metrics = dict(report.metrics) | {"tokens": float(batch.rollout.samples.sequences.response_mask.sum())}
        if self._round.asks_annotator:  # the mean of ranks is that of their number
            del metrics["reward"]
        return UpdateReport(metrics, report.optimizer_steps)

    def _pairs(self, scores: Tensor) -> Pairs:
        return (
            super()._pairs(scores)
            if self._round.pairs == "best_worst"
            else every_pair(scores, self._round.samples_per_prompt)
        )

    def _held_at(self, own: Tensor, reference: Tensor) -> Tensor:
        return own if self._round.reference == "round" else reference

    def _learn(self, preferences: PreferenceBatch, prompts: Tensor) -> UpdateReport:
        """Epochs over the round's pairs, in minibatches of whole prompts; returns means over the steps."""
        config, sums = self._round, Counter[str]()
        asked = prompts.unique()
        steps = 0
        for rows in functional.minibatches(
            len(asked), epochs=config.epochs, count=config.minibatches, generator=self._rng
        ):
            part = torch.isin(prompts, asked[rows.to(asked.device)]).nonzero().squeeze(1)
            sums.update(self._step(preferences.select(part), self._judge))
            steps += 1
        return UpdateReport({name: total / steps for name, total in sums.items()}, steps)


def every_pair(scores: Tensor, samples_per_prompt: int) -> Pairs:
    """All pairs of responses to one prompt whose scores differ; `ties` are prompts that gave none."""
    groups = scores.reshape(-1, samples_per_prompt)
    better = groups[:, :, None] > groups[:, None, :]
    group, best, worst = better.nonzero(as_tuple=True)
    first = group * samples_per_prompt
    return Pairs(first + best, first + worst, ties=int((~better.flatten(1).any(1)).sum()))
