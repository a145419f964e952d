"""Supervised fine-tuning on demonstrations; the loss is on response tokens alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignbench import DemonstrationBatch, Policy, PolicyOptimizer, ResponseTerms, Seeds, UpdateReport, functional
from alignbench_sft import equations
from alignbench_sft.config import SFTConfig


class SFT(PolicyOptimizer[DemonstrationBatch]):
    """One optimizer step per batch on the mean negative log-likelihood of a response token."""

    shares_batches = True

    def __init__(self, config: SFTConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        self._config, self._policy = config, policy
        self._optimizer = functional.ScheduledAdamW(config, {"policy": policy.trainable()}, updates)

    @classmethod
    def stated_loss(cls, config: SFTConfig, terms: ResponseTerms) -> Tensor:
        return equations.loss(terms)

    def update(self, batch: DemonstrationBatch) -> UpdateReport:
        learning_rate = self._optimizer.next_update()
        sequences = batch.sequences
        tokens = sequences.response_mask.sum()
        self._optimizer.zero_grad()
        sums: Counter[str] = Counter()
        for rows in functional.micro_batches(sequences, torch.arange(len(sequences)), self._config.micro_batch_size):
            part = sequences.select(rows)
            # Divided by the tokens of the whole batch: the step does not depend on micro_batch_size.
            part_loss = -functional.masked_sum(self._policy.logprobs(part).logprobs, part.response_mask) / tokens
            functional.require_finite("the SFT loss", part_loss.detach(), hint="Lower the learning rate.")
            part_loss.backward()
            sums["loss"] += float(part_loss.detach())
        norms = self._optimizer.step()
        metrics = {
            "loss": functional.across_processes(sums)["loss"],
            "gradient_norm": norms["policy"],
            "learning_rate": learning_rate,
            "tokens": float(tokens),
        }
        return UpdateReport(metrics, optimizer_steps=1)

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state)
