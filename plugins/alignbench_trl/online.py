"""The trainer that makes pairs of scored samples: online DPO. The policy samples and the reward source scores, as for any algorithm; which of
two is preferred, both log-probabilities, the loss and the steps are TRL's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignbench import POLICY, REFERENCE, Policy, ScoredRollout, Seeds, functional
from alignbench_trl import library
from alignbench_trl.config import OnlineDPOConfig
from alignbench_trl.optimizer import TRLOptimizer
from alignbench_trl.rollouts import sampled_figures
from alignbench_trl.trainer import Fed, Placeholder, Plan, Step, arguments, divisor, lent, tokenizer


class _OnlineDPOTrainer(Fed, library.OnlineDPOTrainer):
    """What it would sample is given: a prompt is the number of a pair in the batch."""

    given: ScoredRollout

    def _generate(
        self, model: Any, prompts: list[int], images: Any = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        sequences = self.given.rollout.samples.sequences
        rows = sequences.select(torch.tensor(sides(prompts), device=sequences.response_ids.device))
        prompt = rows.prompt_ids, rows.prompt_mask.long()
        return *prompt, rows.response_ids, rows.response_mask.long(), None

    def scores(self, prompts: list[int], **_: Any) -> list[float]:
        """Its reward function. TRL names each prompt twice."""
        found: list[float] = self.given.scores[sides(prompts[: len(prompts) // 2])].tolist()
        return found


def sides(pairs: Sequence[int]) -> list[int]:
    """Rows of a batch as TRL has them: the first responses of these pairs, then the second ones."""
    return [2 * pair + side for side in (0, 1) for pair in pairs]


class OnlineDPO(TRLOptimizer):
    """One step for each batch of samples. No optimum is known of labels that are certain: see algo=online_dpo."""

    def __init__(self, config: OnlineDPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        pairs = config.batch_size // 2
        size = divisor(pairs, config.micro_batch_size)
        self._plan, self._pairs, self._config = Plan(updates, size, pairs // size), pairs, config
        super().__init__(config, policy=policy, seeds=seeds)

    def _made(self, seed: int) -> Any:
        config, policy = self._config, self._policy
        model = lent(policy, POLICY)
        return _OnlineDPOTrainer(
            model=model,
            ref_model=lent(policy, REFERENCE),
            reward_funcs=_reward,
            args=arguments(
                library.OnlineDPOConfig,
                config,
                model,
                self._plan,
                folder=self._folder.name,
                seed=seed,
                max_length=policy.window,
                max_new_tokens=policy.max_response_tokens,
                temperature=config.temperature,
                beta=config.beta,
                loss_type=config.loss,
            ),
            train_dataset=Placeholder(),
            processing_class=tokenizer(policy),
        )

    def _steps(self, batch: ScoredRollout) -> Sequence[Step]:
        functional.require_finite("the reward", batch.scores, hint="Check the reward source.")
        self._trainer.given = batch
        size = self._plan.rows
        return [[{"prompt": list(range(i, i + size)), "trainer": self._trainer} for i in range(0, self._pairs, size)]]

    def _figures(self, batch: ScoredRollout) -> Mapping[str, float]:
        return sampled_figures(self._policy, batch, None)


def _reward(*, trainer: _OnlineDPOTrainer, prompts: list[int], **_: Any) -> list[float]:
    """TRL gives a reward function the columns of its data: here the trainer, which knows the scores."""
    return trainer.scores(prompts)
