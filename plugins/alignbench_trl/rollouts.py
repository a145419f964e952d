"""Trainers that learn from scored samples: GRPO and RLOO. The policy samples and the reward source scores, as for any algorithm; from there
on all is TRL's: the reference's log-probabilities, the advantages, the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from alignbench import POLICY, REFERENCE, ExactProblem, Policy, ScoredRollout, Seeds, functional
from alignbench_trl import library
from alignbench_trl.config import GroupConfig, GRPOConfig, RLOOConfig
from alignbench_trl.optimizer import TRLOptimizer
from alignbench_trl.optimum import kl_in_loss_optimum
from alignbench_trl.trainer import (
    Fed,
    Placeholder,
    Plan,
    Step,
    arguments,
    divisor,
    lent,
    prompts,
    responses,
    tokenizer,
)


class Sampled(Fed):
    """Mixed into GRPO's and RLOO's trainers: what they would sample is given. `ref_logprobs` [B, R]: what they found of it."""

    given: ScoredRollout
    ref_logprobs: Tensor | None = None

    def _tokenize_prompts(self, *_: Any) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts(self.given.rollout.samples.sequences), None, {}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        self.ref_logprobs = found.get("ref_per_token_logps")
        return found

    def scores(self, *_: Any, **__: Any) -> list[float]:
        """Its reward function."""
        return self.given.scores.tolist()


class _GRPOTrainer(Sampled, library.GRPOTrainer):
    def _generate_single_turn(self, *_: Any) -> tuple[list[list[int]], None]:
        return responses(self.given.rollout.samples.sequences), None


class _RLOOTrainer(Sampled, library.RLOOTrainer):
    def _generate_single_turn(self, *_: Any) -> list[list[int]]:
        return responses(self.given.rollout.samples.sequences)


class Groups(TRLOptimizer):
    """epochs x minibatches steps on each batch of rollouts."""

    def __init__(self, config: GroupConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        step = config.batch_size // config.minibatches
        size = divisor(step, config.micro_batch_size)
        self._plan = Plan(updates, size, step // size, each=config.epochs * config.minibatches)
        self._config: Any = config
        super().__init__(config, policy=policy, seeds=seeds)

    def _trained(self, kind: Any, module: Any, settings: Any, seed: int, **own: Any) -> Any:
        """The trainer. It makes its reference from the name of a checkpoint: it is given ours."""
        config, policy = self._config, self._policy
        model = lent(policy, POLICY)
        given = arguments(
            settings,
            config,
            model,
            self._plan,
            folder=self._folder.name,
            seed=seed,
            num_generations=config.samples_per_prompt,
            steps_per_generation=config.minibatches * self._plan.pieces,
            num_iterations=config.epochs,
            max_completion_length=policy.max_response_tokens,
            temperature=config.temperature,
            beta=config.kl_coef,
            epsilon=config.clip_ratio,
            **own,
        )
        reference = lambda *_, **__: lent(policy, REFERENCE)  # noqa: E731
        with patch.object(module, "create_model_from_path", reference):
            return kind(
                model=model,
                reward_funcs=_reward,
                args=given,
                train_dataset=Placeholder(),
                processing_class=tokenizer(policy),
            )

    def _steps(self, batch: ScoredRollout) -> Sequence[Step]:
        """Each micro-batch is the whole batch: the trainer takes its part by itself, and makes its experience at the first."""
        functional.require_finite("the reward", batch.scores, hint="Check the reward source.")
        self._trainer.given = batch
        inputs = [{"prompt": "", "trainer": self._trainer} for _ in range(len(batch.scores))]
        return [[inputs] * self._plan.pieces] * self._plan.each

    def _figures(self, batch: ScoredRollout) -> Mapping[str, float]:
        """KL in nats per response, of the responses as they were sampled."""
        return sampled_figures(self._policy, batch, self._trainer.ref_logprobs)


def sampled_figures(policy: Policy, batch: ScoredRollout, ref: Tensor | None) -> dict[str, float]:
    """Of responses as they were sampled: KL in nats per response, and the share that ended by itself. `ref` [B, R]: the reference's
    log-probabilities; None where they are not known yet."""
    rollout = batch.rollout
    sequences = rollout.samples.sequences
    if ref is None:
        with torch.no_grad():
            ref = policy.logprobs(sequences, role=REFERENCE, temperature=rollout.temperature).logprobs
    kl = functional.sequence_kl(rollout.logprobs, ref, sequences.response_mask)
    return {"kl": float(kl.mean()), "eos_rate": float(rollout.samples.finished.float().mean())}


def _reward(trainer: list[Sampled], **_: Any) -> list[float]:
    """TRL gives a reward function the columns of its data: here the trainer, which knows the scores."""
    return trainer[0].scores()


class GRPO(Groups):
    """trl.GRPOTrainer."""

    @classmethod
    def optimum(cls, config: GRPOConfig, problem: ExactProblem) -> Tensor | None:
        """See `kl_in_loss_optimum`. None where advantages are scaled or responses weighted by their length, without a KL, and at another
        temperature (the policy optimised is not the one evaluated)."""
        if (
            config.scale_rewards != "none"
            or config.loss_type == "grpo"
            or not config.kl_coef
            or config.temperature != 1
        ):
            return None
        return kl_in_loss_optimum(
            problem, config.kl_coef, samples=config.samples_per_prompt, unbiased=config.unbiased_kl
        )

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """Without scaling, for which theory has no answer."""
        return {"scale_rewards": "none"}

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """With the KL's gradient as the paper has it."""
        return ({"unbiased_kl": False},)

    def _made(self, seed: int) -> Any:
        config = self._config
        return self._trained(
            _GRPOTrainer,
            library.grpo_trainer,
            library.GRPOConfig,
            seed,
            loss_type=config.loss_type,
            scale_rewards=config.scale_rewards,
            use_bias_correction_kl=config.unbiased_kl,
        )


class RLOO(Groups):
    """trl.RLOOTrainer."""

    @classmethod
    def optimum(cls, config: RLOOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / kl_coef) / Z, as for algo=rloo. None for kl_coef=0 and for another temperature."""
        if not config.kl_coef or config.temperature != 1:
            return None
        return functional.kl_optimum(problem.reference, problem.rewards, config.kl_coef)

    def _made(self, seed: int) -> Any:
        return self._trained(_RLOOTrainer, library.rloo_trainer, library.RLOOConfig, seed)
