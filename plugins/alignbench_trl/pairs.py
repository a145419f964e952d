"""Trainers that learn from recorded pairs: DPO, ORPO and CPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from alignbench import POLICY, REFERENCE, ExactProblem, Policy, PreferenceBatch, Seeds, functional
from alignbench_trl import library
from alignbench_trl.config import CPOConfig, DPOConfig, PairsConfig
from alignbench_trl.optimizer import TRLOptimizer
from alignbench_trl.trainer import Fed, Placeholder, Plan, Step, arguments, divisor, lent, prompts, responses, tokenizer


class _DPOTrainer(Fed, library.DPOTrainer):
    pass


class _ORPOTrainer(Fed, library.ORPOTrainer):
    pass


class _CPOTrainer(Fed, library.CPOTrainer):
    pass


class Pairs(TRLOptimizer):
    """One step per batch of pairs."""

    def __init__(self, config: PairsConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        size = divisor(config.batch_size, config.micro_batch_size)
        self._plan = Plan(updates, size, config.batch_size // size)
        self._config: Any = config
        super().__init__(config, policy=policy, seeds=seeds)

    def _arguments(self, kind: Any, model: Any, seed: int, **own: Any) -> Any:
        window = self._policy.window
        return arguments(
            kind, self._config, model, self._plan, folder=self._folder.name, seed=seed, max_length=window, **own
        )

    def _rows(self, batch: PreferenceBatch) -> list[dict[str, Any]]:
        sides = prompts(batch.chosen), responses(batch.chosen), responses(batch.rejected)
        return [self._row(*row) for row in zip(*sides, strict=True)]

    def _row(self, prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, Any]:
        """As the trainer's tokenisation makes it."""
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side, ids in (("chosen", chosen), ("rejected", rejected)):
            row[f"{side}_input_ids"] = prompt + ids
            row[f"{side}_attention_mask"] = [1] * len(prompt + ids)
            row[f"{side}_labels"] = [-100] * len(prompt) + ids
        return row

    def _steps(self, batch: PreferenceBatch) -> Sequence[Step]:
        rows, collate, size = self._rows(batch), self._trainer.data_collator, self._plan.rows
        return [[collate(rows[start : start + size]) for start in range(0, len(rows), size)]]


class DPO(Pairs):
    """trl.DPOTrainer, loss_type=sigmoid: one pass of the policy and one of the reference over both sides of each pair."""

    @classmethod
    def optimum(cls, config: DPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / beta) / Z: with all pairs of a ranking a hard label is drawn with the pair's own probability. None for
        pairs=best_worst: the first and the last of a ranking are further apart."""
        return functional.kl_optimum(problem.reference, problem.rewards, config.beta) if config.pairs == "all" else None

    def _made(self, seed: int) -> Any:
        model = lent(self._policy, POLICY)
        return _DPOTrainer(
            model=model,
            ref_model=lent(self._policy, REFERENCE),
            args=self._arguments(library.DPOConfig, model, seed, beta=self._config.beta),
            train_dataset=Placeholder(),
            processing_class=tokenizer(self._policy),
        )

    def _row(self, prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, Any]:
        return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


class ORPO(Pairs):
    """trl.experimental.orpo.ORPOTrainer. No optimum is known: see algo=orpo."""

    def _made(self, seed: int) -> Any:
        model, own = lent(self._policy, POLICY), {"beta": self._config.orpo_lambda}
        return _ORPOTrainer(
            model=model,
            args=self._arguments(library.ORPOConfig, model, seed, **own),
            train_dataset=Placeholder(),
            processing_class=tokenizer(self._policy),
        )


class CPO(Pairs):
    """trl.experimental.cpo.CPOTrainer, loss_type=sigmoid."""

    @classmethod
    def optimum(cls, config: CPOConfig, problem: ExactProblem) -> Tensor | None:
        """exp(r / beta) / Z without imitation and with all pairs: DPO's from a uniform reference. None otherwise, as for algo=cpo."""
        if config.alpha or config.pairs != "all":
            return None
        return (problem.rewards / config.beta).softmax(1)

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """Without imitation, where it has one."""
        return ({"alpha": 0.0},)

    def _made(self, seed: int) -> Any:
        model, config = lent(self._policy, POLICY), self._config
        own = {"beta": config.beta, "cpo_alpha": config.alpha}
        return _CPOTrainer(
            model=model,
            args=self._arguments(library.CPOConfig, model, seed, **own),
            train_dataset=Placeholder(),
            processing_class=tokenizer(self._policy),
        )
