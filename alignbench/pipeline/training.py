"""The training loop of every stage: batches in, updates out, each one logged, all of it resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch

from alignbench import distributed, functional
from alignbench.app.config import BudgetSettings
from alignbench.contracts import Policy, PolicyOptimizer
from alignbench.errors import NonFiniteError
from alignbench.pipeline.experience import Batch
from alignbench.records import (
    ScoredRollout,
    UpdateReport,
)
from alignbench.records.batches import DemonstrationBatch, LabelledBatch, PreferenceBatch
from alignbench.store.checkpoints import Checkpoints, NoCheckpoints


class Step(Protocol):
    """Called after every update. `batch` is what was learnt from and `report` what the algorithm said; a fit of a reward has neither."""

    def __call__(
        self,
        stage: str,
        update: int,
        updates: int,
        metrics: Mapping[str, float],
        batch: Batch | None = None,
        report: UpdateReport | None = None,
    ) -> None: ...


Batches = Callable[[int], Iterable[Batch]]
"""batches(done): those that come after the first `done`."""


class Ahead(Protocol):
    """What has begun beyond the batches that were learnt from: part of a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], *, updates: int, start: int) -> None: ...


Point = Callable[[int, bool], None]
"""point(updates, last): looks at the policy as it stands after so many updates, 0 before the first. Its time is not training's."""
NO_BUDGET = BudgetSettings()
LESS_MEMORY = ("a smaller micro_batch_size", "model.gradient_checkpointing=true, where the model has it")


@dataclass(frozen=True)
class Trained:
    """What a training stage has done. `samples` counts the responses and `tokens` the response tokens that it was fed,
    `seconds` the time it took, `metrics` are those of the last update; `stopped` says what ended it before its last update."""

    updates: int = 0
    optimizer_steps: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    stopped: str | None = None


def train(
    stage: str,
    optimizer: PolicyOptimizer[Any],
    batches: Batches,
    *,
    policy: Policy,
    updates: int,
    step: Step,
    budget: BudgetSettings = NO_BUDGET,
    checkpoints: Checkpoints | None = None,
    point: Point = lambda updates, last: None,
    before: float = 0.0,
    ahead: Ahead | None = None,
) -> Trained:
    """Feeds the optimizer until the batches end, a budget is spent or it asks to stop. A reward, loss, gradient or weight
    that is not finite stops the stage and says at which update; the policy is then as the last good update left it. `before` are
    seconds that the algorithm has cost already.

    Where there is a checkpoint of this stage it goes on from there, with the same result as if it had never stopped."""
    checkpoints = checkpoints or NoCheckpoints()
    done = Trained(seconds=before)
    if state := checkpoints.restore(stage):
        done = _restored(state, policy, optimizer)
        if ahead:
            ahead.load_state_dict(state["ahead"], updates=updates, start=done.updates)
    before, start = done.seconds, time.perf_counter()

    def ended() -> bool:
        return bool(done.stopped) or done.updates == updates

    try:
        start += _seconds(point, done.updates, ended())
        for batch in batches(done.updates) if not done.stopped else ():
            with _undone_unless_finite(policy), functional.within_memory(f"an update of {stage}", *LESS_MEMORY):
                report = optimizer.update(batch)
                if odd := [name for name, value in report.metrics.items() if not math.isfinite(value)]:
                    raise NonFiniteError(f"{odd[0]} is {report.metrics[odd[0]]}. Lower the learning rate.")
            done = Trained(
                done.updates + 1,
                done.optimizer_steps + report.optimizer_steps,
                done.samples + samples(batch),
                done.tokens + tokens(batch),
                before + time.perf_counter() - start,
                {**report.metrics, **part_means(batch)},
            )
            # Clocks differ: processes that share a run must stop at the same update.
            stopped = distributed.agreed(partial(_why_stop, report, budget, done))
            done = dataclasses.replace(done, stopped=stopped)
            step(stage, done.updates, updates, done.metrics, batch, report)
            checkpoints.keep(stage, done.updates, partial(_state, done, policy, optimizer, ahead), last=ended())
            start += _seconds(point, done.updates, ended())
            if done.stopped:
                break
    except NonFiniteError as error:
        raise NonFiniteError(f"{stage}, update {done.updates + 1} of {updates}: {error}") from error
    return done


def _seconds(point: Point, updates: int, last: bool) -> float:
    start = time.perf_counter()
    point(updates, last)
    return time.perf_counter() - start


def _why_stop(report: UpdateReport, budget: BudgetSettings, done: Trained) -> str | None:
    return report.stop or spent(budget, done)


def spent(budget: BudgetSettings, done: Trained) -> str | None:
    """The first bound of the budget that has been reached, as the user set it."""
    for name, bound in vars(budget).items():
        if bound and getattr(done, name) >= bound:
            return f"budget.{name}={bound:g}"
    return None


def _state(done: Trained, policy: Policy, optimizer: PolicyOptimizer[Any], ahead: Ahead | None) -> dict[str, Any]:
    return {
        "trained": dataclasses.asdict(done),
        "weights": [parameter.detach() for parameter in policy.trainable()],
        "optimizer": optimizer.state_dict(),
        "ahead": ahead.state_dict() if ahead else {},
    }


def _restored(state: Mapping[str, Any], policy: Policy, optimizer: PolicyOptimizer[Any]) -> Trained:
    with torch.no_grad():
        for parameter, saved in zip(policy.trainable(), state["weights"], strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    return Trained(**state["trained"])


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


def part_means(batch: Batch) -> dict[str, float]:
    """`reward/<part>`: the mean over the batch of each part that its scores are sums of, before it is weighed."""
    if not isinstance(batch, ScoredRollout) or batch.parts is None:
        return {}
    means = batch.parts.values.mean(0).tolist()
    return {f"reward/{name}": mean for name, mean in zip(batch.parts.names, means, strict=True)}


def samples(batch: Batch) -> int:
    """Responses of a batch; a pair has two."""
    if isinstance(batch, DemonstrationBatch | LabelledBatch):
        return len(batch.sequences)
    return 2 * len(batch) if isinstance(batch, PreferenceBatch) else len(batch.scores)


def tokens(batch: Batch) -> int:
    """Response tokens of a batch."""
    if isinstance(batch, DemonstrationBatch | LabelledBatch):
        return int(batch.sequences.response_mask.sum())
    if isinstance(batch, ScoredRollout):
        return int(batch.rollout.samples.sequences.response_mask.sum())
    return int(batch.chosen.response_mask.sum() + batch.rejected.response_mask.sum())
