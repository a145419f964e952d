"""Value pretraining: the value network learns what the SFT model's responses return before the policy's first step (VC-PPO, Yuan et
al., arXiv 2503.01491; VAPO, arXiv 2504.05118).

A value network that starts from a reward model knows whole responses and is wrong about unfinished ones; the policy's first steps
then follow its errors.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignbench import ScalarRole, Sequences, functional
from alignbench.functional import masked_sum, require_finite
from alignbench_ppo.config import PPOConfig


class ValueWarmup:
    """An optimizer of its own, at the value network's highest learning rate, which is given up at the end: the policy's schedule and
    moments begin after it, as without it."""

    def __init__(self, config: PPOConfig, value: ScalarRole) -> None:
        self._config, self._value, self._done = config, value, 0
        constant = dataclasses.replace(config, lr_schedule="constant", lr_schedule_options={}, warmup_updates=0)
        rate = config.learning_rate if config.value_learning_rate is None else config.value_learning_rate
        self._optimizer: functional.ScheduledAdamW | None = functional.ScheduledAdamW(
            constant, {"value": value.parameters()}, config.value_warmup, learning_rates={"value": rate}
        )

    @property
    def goes_on(self) -> bool:
        """Whether the next update is still its own."""
        return self._optimizer is not None

    def update(self, sequences: Sequences, returns: Tensor, shuffle: torch.Generator) -> dict[str, float]:
        """epochs x minibatches steps towards the returns [B, R]; the mean over them of what each step measured."""
        config, optimizer = self._config, self._optimizer
        assert optimizer is not None
        optimizer.next_update()
        totals: Counter[str] = Counter()
        parts = functional.minibatches(
            len(sequences), epochs=config.epochs, count=config.minibatches, generator=shuffle
        )
        for minibatch in parts:
            totals.update(self._step(optimizer, sequences, returns, minibatch))
        self._done += 1
        self._end()
        return {name: total / (config.epochs * config.minibatches) for name, total in totals.items()}

    def _step(
        self, optimizer: functional.ScheduledAdamW, sequences: Sequences, returns: Tensor, minibatch: Tensor
    ) -> dict[str, float]:
        tokens, sums = sequences.response_mask[minibatch].sum(), Counter[str]()
        weights = self._value.parameters()
        optimizer.zero_grad()
        for rows in functional.micro_batches(sequences, minibatch, self._config.micro_batch_size):
            part = sequences.select(rows)
            error = self._value.values(part)[:, :-1] - returns[rows, : part.response_ids.shape[1]]
            loss = 0.5 * masked_sum(error**2, part.response_mask) / tokens
            require_finite("the value loss", loss.detach(), hint="Lower the learning rate.")
            sums["value_loss"] += float(loss.detach())
            # A value that reads the policy's states leaves no gradients on the policy's weights.
            loss.backward(inputs=weights if self._value.reads_policy else None)  # type: ignore[no-untyped-call]
        norms = optimizer.step()
        return {**functional.across_processes(sums), "value_gradient_norm": norms["value"]}

    def _end(self) -> None:
        if self._done >= self._config.value_warmup:
            self._optimizer = None

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done, "optimizer": None if self._optimizer is None else self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._done = state["done"]
        self._end()
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
