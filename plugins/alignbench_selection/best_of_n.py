"""Best-of-n: a rule for how a model is sampled, not for how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from alignbench import ExactProblem, Policy, PolicyOptimizer, Seeds, UpdateReport, functional
from alignbench_selection.config import BestOfNConfig


class BestOfN(PolicyOptimizer[Any]):
    """Nothing to train: it consumes nothing, so the core never builds or updates it and evaluates the SFT model with
    `config.candidates` responses to choose from. It is a class for the sake of its `optimum`."""

    shares_batches = True

    def __init__(self, config: BestOfNConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        pass

    @classmethod
    def optimum(cls, config: BestOfNConfig, problem: ExactProblem) -> Tensor | None:
        return functional.best_of_n(problem.reference, problem.rewards, config.n)

    def update(self, batch: Any) -> UpdateReport:
        return UpdateReport({}, optimizer_steps=0)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
