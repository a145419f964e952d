"""Checks of an evaluation: what its scores may depend on, and what it does where a metric does not apply."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from alignbench.contracts import Evaluation
from alignbench.contracts.subject import MeasuredRanking, Subject
from alignbench.errors import UserError
from alignbench.evaluation.preferences import measured
from alignbench.evaluation.respond import complete, likelihoods, measure
from alignbench.optimizer_config import ImplicitReward
from alignbench.plugins import Component
from alignbench.records import (
    POLICY,
    REFERENCE,
    Direction,
    ExampleScore,
    Generation,
    MetricSpec,
    Prompt,
    Samples,
    Sampling,
)
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.world import BradleyTerry, World, WorldData, WorldReward

_NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
Scores = Mapping[tuple[str, str], float]

check = CheckList()


class Examined:
    """A checkpoint of a tabular policy, answered for by the world: `samples` responses to each of six prompts."""

    def __init__(self, seed: int, *, samples: int = 4, known: bool = True) -> None:
        self.world = World(seed, prompts=6, tokens=3)
        self._data = WorldData(self.world, judges=known)
        self._reward = WorldReward(self.world) if known else None
        self._policy = self.world.policy(moved=0.5)
        rng = Seeds(seed).torch("generations")
        both = [
            self._policy.generate(self.world.prompts, Sampling(), n=samples, role=role, rng=rng).samples
            for role in (POLICY, REFERENCE)
        ]
        generations, baseline = (self._measure(drawn) for drawn in both)
        self.subject = Subject(
            Path("checkpoint"), generations, baseline, self._policy.tokenizer, self._respond, self._given,
            complete=self._complete, likelihoods=partial(likelihoods, self._policy), preferences=self._preferences,
            implicit=ImplicitReward(beta=1.0),
        )  # fmt: skip

    def _respond(self, prompts: Sequence[Prompt], n: int) -> tuple[Generation, ...]:
        # By prompt: an evaluation that asks again is no better or worse by chance, whatever else it has asked.
        drawn = (self._policy.generate([p], Sampling(), n=n, rng=self._rng(p)).samples for p in prompts)
        return tuple(generation for samples in drawn for generation in self._measure(samples))

    def _complete(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> tuple[Generation, ...]:
        drawn = (complete(self._policy, [p], n=n, sampling=sampling, rng=self._rng(p)) for p in prompts)
        return tuple(generation for generations in drawn for generation in generations)

    def _rng(self, prompt: Prompt) -> torch.Generator:
        return self.world.seeds.torch(f"asked {prompt.id}")

    def _given(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[int]]) -> tuple[Generation, ...]:
        return self._measure(self._policy.samples(prompts, [tuple(ids) for ids in responses]))

    def _preferences(self, limit: int) -> tuple[MeasuredRanking, ...]:
        annotator, rng = BradleyTerry(self.world, seeds=self.world.seeds), self.world.seeds.torch("held out")
        return measured(self._policy, self.world.rankings(limit or 24, 4, rng, annotator), reference=True)

    def _measure(self, samples: Samples) -> tuple[Generation, ...]:
        return measure(self._policy, samples, data=self._data, reward=self._reward)


def evaluate(component: Component, subject: Subject) -> Sequence[ExampleScore]:
    try:
        made: Evaluation = component.load()(component.config())
        return made.evaluate(subject)
    except UserError as error:
        raise NotApplicable(f"it cannot be used on the kit's data: {error}") from error


def table(scores: Sequence[ExampleScore]) -> Scores:
    return {(score.metric, score.example): score.value for score in scores}


def _specs(component: Component) -> Sequence[MetricSpec]:
    try:
        made: Evaluation = component.load()(component.config())
    except UserError as error:
        raise NotApplicable(f"it cannot be built on the kit's data: {error}") from error
    return made.specs()


def _close(one: Scores, other: Scores, what: str) -> None:
    if odd := sorted(set(one) ^ set(other)):
        raise PropertyBroken(f"{what}: {odd[0][0]} of example {odd[0][1]!r} is there only once.")
    for key, value in one.items():
        if not math.isclose(value, other[key], rel_tol=1e-6, abs_tol=1e-9):
            raise PropertyBroken(f"{what}: {key[0]} of example {key[1]!r} is {value:.6g} and {other[key]:.6g}.")


@check(causes="a metric without a MetricSpec, a name without its family, or a name given twice.")
def specs_cover_every_metric(component: Component, seed: int) -> None:
    """`specs` names each metric once, as family/name with its direction, and covers all that `evaluate` returns."""
    specs = _specs(component)
    names = [spec.name for spec in specs]
    if odd := [name for name in names if not _NAME.fullmatch(name)]:
        raise PropertyBroken(f"{odd[0]!r} does not read family/name in lower-case letters, digits and underscores.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise PropertyBroken(f"{twice[0]!r} is specified twice.")
    if odd := [spec.name for spec in specs if not isinstance(spec.direction, Direction)]:
        raise PropertyBroken(f"{odd[0]!r} has no Direction.")
    returned = {score.metric for score in evaluate(component, Examined(seed).subject)}
    if unknown := sorted(returned - set(names)):
        raise PropertyBroken(f"{unknown[0]!r} is returned and not specified.")


@check(causes="one score per response in place of one per prompt, or a mean of nothing.")
def examples_are_scored_once(component: Component, seed: int) -> None:
    """Each metric has one finite float for an example."""
    for samples in (4, 1):
        scores = evaluate(component, Examined(seed, samples=samples).subject)
        counts = Counter((score.metric, score.example) for score in scores)
        if twice := [key for key, count in counts.items() if count > 1]:
            raise PropertyBroken(f"{twice[0][0]} scores example {twice[0][1]!r} {counts[twice[0]]} times.")
        for score in scores:
            if not (isinstance(score.value, float) and math.isfinite(score.value)):
                raise PropertyBroken(f"{score.metric} of example {score.example!r} is {score.value!r}.")


@check(causes="pairing by position in place of prompt and index, or `previous` generations kept between prompts.")
def order_of_generations_is_irrelevant(component: Component, seed: int) -> None:
    """The generations in another order give the same scores."""
    plain, mixed = Examined(seed).subject, Examined(seed).subject
    order = Seeds(seed).python("order of generations").sample(range(len(mixed.generations)), len(mixed.generations))
    generations, baseline = (tuple(part[i] for i in order) for part in (mixed.generations, mixed.baseline))
    mixed = dataclasses.replace(mixed, generations=generations, baseline=baseline)
    _close(table(evaluate(component, plain)), table(evaluate(component, mixed)), "In another order")


@check(causes="`random` without a seed, the order of a set, or state kept between calls.")
def same_generations_same_scores(component: Component, seed: int) -> None:
    """The same subject gives the same scores, and is left as it was."""
    first, second = Examined(seed).subject, Examined(seed).subject
    made: Evaluation = component.load()(component.config())
    try:
        scores, again = table(made.evaluate(first)), table(made.evaluate(second))
    except UserError as error:
        raise NotApplicable(f"it cannot be used on the kit's data: {error}") from error
    _close(scores, again, "A second time")
    for name in ("generations", "baseline"):
        if getattr(first, name) != getattr(second, name) or getattr(first, name) != getattr(
            Examined(seed).subject, name
        ):
            raise PropertyBroken(f"The subject's {name} changed.")


@check(causes="a zero, or a default, in place of a metric that the data does not allow.")
def what_does_not_apply_is_left_out(component: Component, seed: int) -> None:
    """Without verdicts and scores, the metrics that depend on them are left out."""
    full = Examined(seed).subject
    told = table(evaluate(component, full))
    turned = dataclasses.replace(full, generations=tuple(_turned(g) for g in full.generations))
    other = table(evaluate(component, turned))
    depend = {key[0] for key in told if told[key] != other.get(key, told[key])}
    left = {score.metric for score in evaluate(component, Examined(seed, known=False).subject)}
    if filled := sorted(depend & left):
        raise PropertyBroken(f"{filled[0]!r} depends on a verdict or a score, and is returned where there is none.")


def _turned(generation: Generation) -> Generation:
    """The same response, judged the other way round."""
    old = generation.verdict
    assert old is not None
    assert generation.proxy_reward is not None
    verdict = dataclasses.replace(
        old,
        gold_reward=3.0 - old.gold_reward,
        correct=not old.correct,
        agrees=None if old.agrees is None else not old.agrees,
    )
    return dataclasses.replace(generation, verdict=verdict, proxy_reward=1.0 - 2 * generation.proxy_reward)
