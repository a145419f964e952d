"""The training loop of every stage: batches in, updates out, each one logged."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from alignbench.contracts import Policy, PolicyOptimizer
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


def train(
    stage: str,
    optimizer: PolicyOptimizer[Any],
    batches: Iterable[Batch],
    *,
    policy: Policy,
    updates: int,
    step: Step,
) -> Trained:
    """Feeds the optimizer until the batches end or it asks to stop. A reward, loss, gradient or weight that is not
    finite stops the stage and says at which update; the policy is then as the last good update left it."""
    done, steps, tokens = 0, 0, 0
    metrics: Mapping[str, float] = {}
    stopped = None
    try:
        for batch in batches:
            with _undone_unless_finite(policy):
                report = optimizer.update(batch)
                metrics = report.metrics
                if odd := [name for name, value in metrics.items() if not math.isfinite(value)]:
                    raise NonFiniteError(f"{odd[0]} is {metrics[odd[0]]}. Lower the learning rate.")
            done, steps, tokens = done + 1, steps + report.optimizer_steps, tokens + count(batch)
            step(stage, done, updates, metrics)
            if stopped := report.stop:
                break
    except NonFiniteError as error:
        raise NonFiniteError(f"{stage}, update {done + 1} of {updates}: {error}") from error
    return Trained(done, steps, tokens, metrics, stopped)


@contextlib.contextmanager
def _undone_unless_finite(policy: Policy) -> Iterator[None]:
    """Puts the weights back where an update goes wrong half-way: one update may be many optimizer steps."""
    before = [parameter.detach().clone() for parameter in policy.trainable()]
    try:
        yield
        if not all(bool(torch.isfinite(parameter).all()) for parameter in policy.trainable()):
            raise NonFiniteError("a weight became NaN or infinite. Lower the learning rate.")
    except NonFiniteError:
        with torch.no_grad():
            for parameter, good in zip(policy.trainable(), before, strict=True):
                parameter.copy_(good)
        raise


def count(batch: Batch) -> int:
    """Response tokens of a batch."""
    if isinstance(batch, DemonstrationBatch):
        return int(batch.sequences.response_mask.sum())
    if isinstance(batch, ScoredRollout):
        return int(batch.rollout.samples.sequences.response_mask.sum())
    return int(batch.chosen.response_mask.sum() + batch.rejected.response_mask.sum())
