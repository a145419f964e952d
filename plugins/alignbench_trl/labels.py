"""The trainer that learns from labels: KTO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignbench import POLICY, REFERENCE, LabelledBatch, Policy, Seeds, UserError
from alignbench_trl import library
from alignbench_trl.config import KTOConfig
from alignbench_trl.optimizer import TRLOptimizer
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


class _KTOTrainer(Fed, library.KTOTrainer):
    pass


class KTO(TRLOptimizer):
    """trl.KTOTrainer, loss_type=kto. No optimum is known: see algo=kto."""

    def __init__(self, config: KTOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        pairs = divisor(config.batch_size, config.micro_batch_size)
        if pairs < 2:  # the reference point would be that of a response's own prompt
            raise UserError(
                f"algo.batch_size={config.batch_size} with algo.micro_batch_size={config.micro_batch_size} leaves one pair to a micro-batch, "
                "and TRL's KTO needs two: give a batch that two or more divide."
            )
        self._plan = Plan(updates, 2 * pairs, config.batch_size // pairs)
        self._config = config
        super().__init__(config, policy=policy, seeds=seeds)

    def _made(self, seed: int) -> Any:
        config, model = self._config, lent(self._policy, POLICY)
        return _KTOTrainer(
            model=model,
            ref_model=lent(self._policy, REFERENCE),
            args=arguments(
                library.KTOConfig,
                config,
                model,
                self._plan,
                folder=self._folder.name,
                seed=seed,
                max_length=self._policy.window,
                beta=config.beta,
                desirable_weight=config.desirable_weight,
                undesirable_weight=config.undesirable_weight,
            ),
            train_dataset=Placeholder(),
            processing_class=tokenizer(self._policy),
        )

    def _steps(self, batch: LabelledBatch) -> Sequence[Step]:
        sides = prompts(batch.sequences), responses(batch.sequences), batch.good.tolist()
        rows = [{"prompt_ids": x, "completion_ids": y, "label": good} for x, y, good in zip(*sides, strict=True)]
        size = self._plan.rows
        return [[self._trainer.data_collator(rotated(rows[i : i + size])) for i in range(0, len(rows), size)]]


def rotated(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A micro-batch with TRL's mismatched completions: each row is given that of the row before it. Neighbours, which answer the same prompt
    where they come from a pair, are parted first: all first ones, then all second ones, as TRL's own unpairing puts them."""
    parted = [*rows[::2], *rows[1::2]]
    before = [parted[-1], *parted[:-1]]
    return [{**row, "KL_completion_ids": other["completion_ids"]} for row, other in zip(parted, before, strict=True)]
