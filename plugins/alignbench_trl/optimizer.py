"""A trainer of TRL as an optimizer: a batch of the run is one turn of the trainer's loop."""

from __future__ import annotations

import contextlib
import math
import random
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy
import torch
from transformers import PrinterCallback

from alignbench import Policy, PolicyOptimizer, Seeds, UpdateReport
from alignbench_trl.config import TRLConfig
from alignbench_trl.lockstep import Lockstep, Take
from alignbench_trl.trainer import Step

NAMES = {
    "loss": "loss",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "reward": "reward",
    "completions/mean_length": "length",
    "frac_reward_zero_std": "groups_without_spread",
}
"""What TRL logs, by the names that figures have here; the rest is kept as trl/<its name>. TRL's kl is nats per token, and stays TRL's."""
REQUIRED = ("loss", "grad_norm")
LEFT_OUT = ("epoch", "step_time", "logits/chosen", "logits/rejected")
"""The run has no epochs of TRL's and a clock of its own, and logits are those of suppressed tokens too."""


class TRLOptimizer(PolicyOptimizer[Any]):
    """Everything that TRL's trainers have in common here: their loop, their chances, their state."""

    def __init__(self, config: TRLConfig, *, policy: Policy, seeds: Seeds) -> None:
        self._policy = policy
        self._folder = tempfile.TemporaryDirectory(prefix="alignbench-trl-")
        self._chances = torch.Generator().get_state()
        with self._chance(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TRL's own, of transformers' arguments
            self._trainer = self._made(seeds.integer("trainer"))
        self._trainer.remove_callback(PrinterCallback)
        self._loop: Lockstep[Sequence[Step]] = Lockstep(partial(_train, self._trainer))

    @abstractmethod
    def _made(self, seed: int) -> Any:
        """The trainer, over the policy's weights."""

    @abstractmethod
    def _steps(self, batch: Any) -> Sequence[Step]:
        """What the trainer is given for the optimizer steps of this batch."""

    def _figures(self, batch: Any) -> Mapping[str, float]:
        """What is reported beside what TRL logs."""
        return {}

    def update(self, batch: Any) -> UpdateReport:
        with self._chance():
            self._loop.turn(self._steps(batch))
        told, self._trainer.told = self._trainer.told, []
        return UpdateReport({**figures(told), **self._figures(batch)}, optimizer_steps=len(told))

    @contextlib.contextmanager
    def _chance(self) -> Iterator[None]:
        """TRL seeds and uses the global generators: they are its own for the time of a turn, and then as they were."""
        others = random.getstate(), numpy.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self._chances)
                yield
                self._chances = torch.get_rng_state()
        finally:
            random.setstate(others[0])
            numpy.random.set_state(others[1])

    def state_dict(self) -> dict[str, Any]:
        trainer = self._trainer
        if not trainer.optimizer:  # nothing was trained yet
            return {"chances": self._chances}
        return {
            "chances": self._chances,
            "optimizer": trainer.optimizer.state_dict(),
            "schedule": trainer.lr_scheduler.state_dict(),
            "steps": trainer.state.global_step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._chances = state["chances"]
        self._trainer.restored = state if "steps" in state else None


def _train(trainer: Any, take: Take[Sequence[Step]]) -> None:
    trainer.take = take
    trainer.train()


def figures(told: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over the steps of an update. TRL says NaN or nothing of what a batch did not have; a loss must be a number."""
    found: dict[str, float] = {}
    for name in [name for name in told[0] if name not in LEFT_OUT]:
        values = [float(one[name]) for one in told if one.get(name) is not None]
        if name in REQUIRED or (values and all(map(math.isfinite, values))):
            found[NAMES.get(name, f"trl/{name}")] = sum(values) / len(values)
    return found
