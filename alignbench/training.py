"""The training loop of every stage: batches in, updates out, each one logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from alignbench.contracts import PolicyOptimizer
from alignbench.errors import NonFiniteError
from alignbench.experience import Batch
from alignbench.records import DemonstrationBatch, ScoredRollout

Step = Callable[[str, int, int, Mapping[str, float]], None]
"""step(stage, update, updates, metrics), called after every update."""


@dataclass(frozen=True)
class Trained:
    """What a training stage did. `tokens` counts the response tokens that it was fed."""

    updates: int
    optimizer_steps: int
    tokens: int
    metrics: Mapping[str, float]
    stopped: str | None


def train(stage: str, optimizer: PolicyOptimizer[Any], batches: Iterable[Batch], *, updates: int, step: Step) -> Trained:
    """Feeds the optimizer until the batches end or it asks to stop. A reward, loss or gradient that is not finite
    stops the stage and says at which update; the policy is then as the last good update left it."""
    done, steps, tokens = 0, 0, 0
    metrics: Mapping[str, float] = {}
    stopped = None
    try:
        for batch in batches:
            report = optimizer.update(batch)
            done, steps, tokens, metrics = done + 1, steps + report.optimizer_steps, tokens + count(batch), report.metrics
            if odd := [name for name, value in metrics.items() if not math.isfinite(value)]:
                raise NonFiniteError(f"{odd[0]} is {metrics[odd[0]]}.")
            step(stage, done, updates, metrics)
            if stopped := report.stop:
                break
    except NonFiniteError as error:
        raise NonFiniteError(f"{stage}, update {done + 1} of {updates}: {error}") from error
    return Trained(done, steps, tokens, metrics, stopped)


def count(batch: Batch) -> int:
    """Response tokens of a batch."""
    if isinstance(batch, DemonstrationBatch):
        return int(batch.sequences.response_mask.sum())
    if isinstance(batch, ScoredRollout):
        return int(batch.rollout.samples.sequences.response_mask.sum())
    return int(batch.chosen.response_mask.sum() + batch.rejected.response_mask.sum())
