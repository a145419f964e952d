"""Online DPO: the policy samples, a score chooses the pair, and DPO's loss learns from it (OAIF, arXiv 2402.04792)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignbench import (
    REFERENCE,
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
from alignbench_dpo.losses import dpo_loss
from alignbench_dpo.pairs import Objective, PairLearner, Side


@dataclass(frozen=True)
class Pairs:
    """Rows of a rollout: `best[i]` scores above `worst[i]`, [pairs]; `ties` prompts gave none."""

    best: Tensor
    worst: Tensor
    ties: int


class OnlineDPO(PairLearner):
    """One step per rollout, on the best and the worst response to each prompt."""

    def __init__(self, config: OnlineDPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy, updates, temperature=config.temperature)
        self._config = config

    @classmethod
    def optimum(cls, config: OnlineDPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / beta) / Z for the sigmoid loss with soft labels: it meets every pair's own optimum, so it does
        not matter that the policy which is trained also draws the pairs.

        None with hard labels: the better response always wins, so that no finite margin is enough; for the other losses,
        whose optimum moves with the policy that draws the pairs; and where the policy is not what is sampled (a
        temperature other than 1)."""
        if config.loss != "sigmoid" or config.labels != "soft" or config.temperature != 1:
            return None
        scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
        return None if scores is None else functional.kl_optimum(problem.reference, scores, config.beta)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """With soft labels: a better response that always wins is never far enough ahead."""
        return {"labels": "soft"}

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """Where a response that is cut off has a score of its own."""
        return ({"missing_eos": "replace", "missing_eos_penalty": 0.5},)

    @classmethod
    def stated_loss(cls, config: OnlineDPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.online_dpo(config, terms)

    def update(self, batch: ScoredRollout) -> UpdateReport:
        config, samples = self._config, batch.rollout.samples
        sequences, mask = samples.sequences, samples.sequences.response_mask.bool()

        # 1. Scores, lowered where a response was cut off; the pairs that they make.
        functional.require_finite("the reward", batch.scores, hint="Check the reward source.")
        scores = functional.shape_scores(batch.scores, samples.finished, config.missing_eos, config.missing_eos_penalty)
        pairs = self._pairs(scores)

        # 2. The reference's log-probabilities, and the KL of the sampled responses in nats per response. The policy's are
        #    recomputed: a sampler's rounding, summed over a response, would pass for a KL.
        with torch.no_grad():
            own = self._policy.logprobs(sequences, temperature=config.temperature).logprobs
            ref = self._policy.logprobs(sequences, role=REFERENCE, temperature=config.temperature).logprobs
        held_at = functional.masked_sum(self._held_at(own, ref), mask, dim=1)
        metrics = {
            "reward": float(batch.scores.mean()),
            "kl": float(functional.sequence_kl(own, ref, mask).mean()),
            "length": float(mask.sum(1).float().mean()),
            "eos_rate": float(samples.finished.float().mean()),
            "pairs": float(len(pairs.best)),
            "ties": float(pairs.ties),
            "learning_rate": self._optimizer.next_update(),
        }

        # 3. One step on the pairs, if there are any.
        if not len(pairs.best):
            return UpdateReport({**metrics, "loss": 0.0}, optimizer_steps=0)
        preferences = PreferenceBatch(
            sequences.select(pairs.best),
            sequences.select(pairs.worst),
            torch.sigmoid(scores[pairs.best] - scores[pairs.worst]) if config.labels == "soft" else None,
            held_at[pairs.best],
            held_at[pairs.worst],
        )
        gap = float((scores[pairs.best] - scores[pairs.worst]).mean())
        learnt = self._learn(preferences, pairs.best // config.samples_per_prompt)
        return UpdateReport({**metrics, "score_gap": gap, **learnt.metrics}, learnt.optimizer_steps)

    def _pairs(self, scores: Tensor) -> Pairs:
        """Of each prompt, the best and the worst."""
        return best_and_worst(scores, self._config.samples_per_prompt)

    def _held_at(self, own: Tensor, reference: Tensor) -> Tensor:
        """Which log-probabilities of the tokens, [B, R], the loss takes for its reference's."""
        return reference

    def _learn(self, preferences: PreferenceBatch, prompts: Tensor) -> UpdateReport:
        """One step on all pairs; `prompts` numbers those that they answer."""
        return UpdateReport(self._step(preferences, self._judge), optimizer_steps=1)

    def _judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        loss = dpo_loss(
            chosen.log_ratio - rejected.log_ratio,
            config.beta,
            loss=config.loss,
            label_smoothing=config.label_smoothing,
            probability=probability,
        )
        return Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)


def best_and_worst(scores: Tensor, samples_per_prompt: int) -> Pairs:
    """The first of the highest and of the lowest scores of each prompt; prompts whose scores are all equal give no pair."""
    groups = scores.reshape(-1, samples_per_prompt)
    first = torch.arange(len(groups), device=scores.device) * samples_per_prompt
    differ = groups.max(1).values > groups.min(1).values
    best, worst = first + groups.argmax(1), first + groups.argmin(1)
    return Pairs(best[differ], worst[differ], ties=int((~differ).sum()))
