"""An algorithm at work on a tabular policy, and what may be done to its batches without changing what it should do."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from alignbench.contracts import PolicyOptimizer
from alignbench.optimizer_config import LabelConfig, OptimizerConfig, PreferenceConfig, RolloutConfig
from alignbench.pipeline.experience import Batch
from alignbench.plugins import Component
from alignbench.records import (
    POLICY,
    REFERENCE,
    Consumes,
    Rollout,
    Samples,
    ScoredRollout,
    Sequences,
    UpdateReport,
)
from alignbench.records.batches import DemonstrationBatch, LabelledBatch, PreferenceBatch
from alignbench.records.source import Source
from alignbench.seeds import Seeds
from alignbench.testing.checks import PropertyBroken
from alignbench.testing.tabular import TabularPolicy, disguise
from alignbench.testing.world import World

T = TypeVar("T")
ROWS = 16
TEMPERATURE = 0.8
"""Not 1, so that a temperature that is forgotten shows."""
LARGEST_GROUP = 16
"""Responses to a prompt: the world has 40 that differ."""


def has(component: Component, name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(component.config)}


def settings(component: Component, *, rows: int = ROWS, updates: int = 6, **changes: Any) -> OptimizerConfig:
    """The algorithm's own defaults at a small size, with every option in `changes` that it has.

    adam_eps=1 makes AdamW's step nearly proportional to the gradient: with a small one, rounding of a gradient that
    should be 0 would be blown up to a whole step, and no two ways of summing could be compared."""
    default: Any = component.config()
    group = min(getattr(default, "samples_per_prompt", 1), LARGEST_GROUP)
    together = group * max(changes.get("minibatches", getattr(default, "minibatches", 1)), 1)
    step = math.lcm(together, 4)
    rows = step * max(math.ceil(rows / step), 1)
    base = {
        "updates": updates,
        "batch_size": rows,
        "micro_batch_size": rows,
        "learning_rate": 1.0,
        "adam_eps": 1.0,
        "lr_schedule": "constant",
        "warmup_updates": 0,
        "value_warmup": 0,  # updates that leave the policy alone; what they do, `steps_follow_the_stated_loss` tries
        "weight_decay": 0.0,
        "temperature": TEMPERATURE,
        "samples_per_prompt": group,
    }
    made: OptimizerConfig = dataclasses.replace(
        default, **{name: value for name, value in (base | changes).items() if has(component, name)}
    )
    return made


class Trial:
    """An algorithm on a policy that stands away from its reference, and the batches that it is fed, on-policy."""

    def __init__(
        self,
        component: Component,
        seed: int,
        *,
        world: World | None = None,
        moved: float = 0.5,
        config: OptimizerConfig | None = None,
        shared: bool = False,
        **changes: Any,
    ) -> None:
        self.component, self.seed = component, seed
        self.config: Any = settings(component, **changes) if config is None else config
        self.world = World(seed, prompts=4, tokens=3) if world is None else world
        self.policy = self.world.policy(moved=moved)
        self.policy.shares_trunk = shared
        self.optimizer = self._build()
        self.start = self.weights()
        self.updates = 0

    def _build(self) -> PolicyOptimizer[Any]:
        with _quietly():  # what it advises against may be just what it is checked with
            made: PolicyOptimizer[Any] = self.component.load()(
                self.config, policy=self.policy, updates=self.config.updates, seeds=Seeds(self.seed).child("algorithm")
            )
        return made

    def batch(self) -> Batch:
        """The batch of the next update, drawn by a generator of its own."""
        rng = Seeds(self.seed).torch(f"batch {self.updates}")
        rows = self.config.batch_size
        if self.config.consumes is Consumes.DEMONSTRATIONS:
            return self.world.demonstrations(rows, rng)
        if isinstance(self.config, PreferenceConfig):
            return self.world.pairs(rows, rng, reference=self.config.uses_reference)
        if isinstance(self.config, LabelConfig):
            return self.world.labels(self.config.responses, rng, reference=self.config.uses_reference)
        assert isinstance(self.config, RolloutConfig)
        return self.world.rollout(
            self.policy,
            rows,
            rng,
            n=self.config.samples_per_prompt,
            temperature=self.config.temperature,
            sources=self.config.sources,
        )

    def update(self, batch: Batch | None = None) -> UpdateReport:
        batch = self.batch() if batch is None else batch
        self.updates += 1
        with _quietly():
            return self.optimizer.update(batch)

    def weights(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.policy.trainable()])

    def moved(self) -> Tensor:
        """How far the weights are from where they started."""
        return self.weights() - self.start

    def resumed(self, state: dict[str, Any]) -> Trial:
        """The algorithm built anew, in another process as it were: with the policy's weights and `state`."""
        other = Trial(self.component, self.seed, world=self.world, config=self.config)
        with torch.no_grad():
            for mine, theirs in zip(other.policy.trainable(), self.policy.trainable(), strict=True):
                mine.copy_(theirs)
        other.optimizer.load_state_dict(state)
        other.updates = self.updates
        return other


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def gap(left: Trial, right: Trial) -> float:
    """The largest difference between two policies, as a share of the largest movement."""
    moved = max(float(left.moved().abs().max()), float(right.moved().abs().max()))
    if moved == 0:
        raise PropertyBroken("No weight moved: there is nothing to compare.")
    return float((left.weights() - right.weights()).abs().max()) / moved


# What must not matter


def disguised(batch: Batch, *, left: int = 0, right: int = 0, rng: torch.Generator | None = None) -> Batch:
    """The same batch with more padding and, with `rng`, other tokens at padding."""
    if isinstance(batch, ScoredRollout):
        old = batch.rollout.samples
        samples = dataclasses.replace(old, sequences=disguise(old.sequences, left=left, right=right, rng=rng))
        logprobs = torch.nn.functional.pad(batch.rollout.logprobs, (0, right))
        return dataclasses.replace(
            batch, rollout=dataclasses.replace(batch.rollout, samples=samples, logprobs=logprobs)
        )
    if isinstance(batch, DemonstrationBatch):
        return DemonstrationBatch(disguise(batch.sequences, left=left, right=right, rng=rng))
    if isinstance(batch, LabelledBatch):
        return dataclasses.replace(batch, sequences=disguise(batch.sequences, left=left, right=right, rng=rng))
    # The two sides are padded unlike each other: they are two batches of sequences.
    chosen = disguise(batch.chosen, left=left, right=right, rng=rng)
    return dataclasses.replace(batch, chosen=chosen, rejected=disguise(batch.rejected, right=2 * right, rng=rng))


def permuted(batch: Batch, rng: torch.Generator, *, group: int = 1, turns: int = 1) -> Batch:
    """The same rows in another order; `group` neighbours stay together, in another order among themselves. Where `turns` draw in turn,
    what each of them drew keeps its place."""
    size = (
        len(batch.rollout.samples)
        if isinstance(batch, ScoredRollout)
        else len(batch.sequences if isinstance(batch, DemonstrationBatch) else batch)
    )
    order = torch.randperm(size // group, generator=rng)
    within = torch.randperm(group // turns, generator=rng)[:, None] * turns + torch.arange(turns)
    rows = (order[:, None] * group + within.flatten()[None]).flatten()
    if isinstance(batch, ScoredRollout):
        samples: Samples = batch.rollout.samples.select(rows)
        width = samples.sequences.response_ids.shape[1]
        old = batch.rollout
        rollout = Rollout(samples, old.logprobs[rows, :width], old.temperature, old.off_policy)
        return ScoredRollout(rollout, batch.scores[rows], batch.parts and batch.parts.select(rows))
    if isinstance(batch, DemonstrationBatch):
        return DemonstrationBatch(batch.sequences.select(rows))
    return batch.select(rows)


def own_rows(config: RolloutConfig, rows: int) -> Tensor:
    """[rows] bool: whether the policy itself drew the response, and not the reference or a mixture."""
    own = torch.tensor([source == Source(POLICY) for source in config.sources])
    return own.repeat(rows // len(own))


def unknown_reference(batch: Batch) -> Batch | None:
    """The same batch with NaN for one of the reference's log-probabilities; None where it brings none."""
    if not isinstance(batch, PreferenceBatch | LabelledBatch):
        return None
    name = "ref_chosen" if isinstance(batch, PreferenceBatch) else "ref_logprobs"
    if (known := getattr(batch, name)) is None:
        return None
    spoilt = known.clone()
    spoilt[len(spoilt) // 2] = math.nan
    return dataclasses.replace(batch, **{name: spoilt})


def snapshot(batch: T) -> T:
    """A copy that shares nothing, to compare with."""
    return copy.deepcopy(batch)


def changed_fields(before: Any, after: Any, name: str = "batch") -> list[str]:
    """The names of the tensors that are not what they were."""
    if isinstance(before, Tensor):
        return [] if torch.equal(before, after) else [name]
    if dataclasses.is_dataclass(before):
        return [
            found
            for field in dataclasses.fields(before)
            for found in changed_fields(getattr(before, field.name), getattr(after, field.name), field.name)
        ]
    return []


# What is watched


@contextlib.contextmanager
def counting_steps() -> Iterator[list[int]]:
    """One entry for each step of any torch optimizer."""
    made: list[int] = []
    hook = register_optimizer_step_post_hook(lambda *_: made.append(1))
    try:
        yield made
    finally:
        hook.remove()


@contextlib.contextmanager
def watching_rates(policy: TabularPolicy) -> Iterator[list[float]]:
    """The learning rate of each step of the optimizer group that holds the policy's weights."""
    rates: list[float] = []
    ours = {id(parameter) for parameter in policy.trainable()}

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            if ours & {id(parameter) for parameter in group["params"]}:
                rates.append(float(group["lr"]))

    hook = register_optimizer_step_pre_hook(note)
    try:
        yield rates
    finally:
        hook.remove()


def reference_table(policy: TabularPolicy, sequences: Sequences) -> Tensor:
    with torch.no_grad():
        return policy.logprobs(sequences, role=REFERENCE).logprobs
