"""Checks of the values of an evaluation: what its author states of them, and what must hold of any metric with a direction."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from alignbench.contracts import Evaluation
from alignbench.contracts.known import Known
from alignbench.contracts.subject import Subject
from alignbench.plugins import Component
from alignbench.records import Direction, ExampleScore, Generation, Opinion
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.evaluations.base import Examined, evaluate
from alignbench.testing.evaluations.scripted import LongerIsBetter, scripted
from alignbench.testing.known import stated, with_settings

TOLERANCE = 1e-6

check = CheckList()


def subjects(seed: int) -> dict[str, Subject]:
    """Checkpoints of the kit's world: with four responses to a prompt, with one, before a judge, the best of two, without verdicts, and
    one that is its own baseline."""
    four = Examined(seed).subject
    judge = LongerIsBetter()
    return {
        "four responses": four,
        "one response": Examined(seed, samples=1).subject,
        "a judge": dataclasses.replace(four, judge=judge),
        "a judge and no verdicts": dataclasses.replace(Examined(seed, known=False).subject, judge=judge),
        "the best of two": dataclasses.replace(four, candidates=2),
        "its own baseline": dataclasses.replace(four, baseline=four.generations, judge=judge),
        "half a baseline": dataclasses.replace(four, baseline=four.baseline[::2], judge=judge),
    }


def _evaluated(component: Component, subject: Subject) -> Sequence[ExampleScore]:
    made: Evaluation = component.load()(component.config())
    return made.evaluate(subject)


def _asked(one: Known, seed: int) -> Iterator[tuple[str, Subject]]:
    if one.answers is None:
        yield from subjects(seed).items()
        return
    plain = scripted(Examined(seed).subject, one.answers, one.likely)
    yield "its answers", plain
    if one.judge is not None:
        yield "its answers and a judge", dataclasses.replace(plain, judge=one.judge)


@check(causes="a wrong group, a mean of means, a sign, a tie, or a part of the definition that was left out.")
def metrics_are_as_stated(component: Component, seed: int) -> None:
    """Its metrics are the numbers that its author states of checkpoints whose responses are known, example by example."""
    for one in stated(component, "gives"):
        tuned = with_settings(component, one)
        assert one.gives is not None
        for name, subject in _asked(one, seed):
            found: dict[str, dict[str, float]] = defaultdict(dict)
            for score in _evaluated(tuned, subject):
                found[score.metric][score.example] = score.value
            for metric, wanted in one.gives(tuned.config(), subject).items():
                _same(f"With {name}, {metric}", found.get(metric, {}), wanted)


def _same(what: str, found: Mapping[str, float], wanted: Mapping[str, float] | float | None) -> None:
    if not isinstance(wanted, Mapping):  # its mean, or None where it is to be left out
        if (wanted is None) != (not found):
            raise PropertyBroken(f"{what} is {'left out' if wanted is not None else 'there, and should not be'}.")
        mean = sum(found.values()) / max(len(found), 1)
        if wanted is not None and not math.isclose(mean, wanted, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise PropertyBroken(f"{what} is {mean:.6g} on average over {len(found)} examples, not {wanted:.6g}.")
        return
    if odd := sorted(set(found) ^ set(wanted)):
        raise PropertyBroken(f"{what}: the example {odd[0]!r} is {'not ' if odd[0] in wanted else ''}there.")
    for example, value in wanted.items():
        if not math.isclose(found[example], value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise PropertyBroken(f"{what} of example {example!r} is {found[example]:.6g}, not {value:.6g}.")


# What holds of any metric


def _means(component: Component, subject: Subject) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for score in evaluate(component, subject):
        values[score.metric].append(score.value)
    return {metric: sum(each) / len(each) for metric, each in values.items()}


def _better(generation: Generation) -> Generation:
    """The same response, with a better verdict."""
    old = generation.verdict
    assert old is not None
    agrees = None if old.agrees is None else False
    verdict = dataclasses.replace(old, gold_reward=old.gold_reward + 2.0, correct=True, agrees=agrees)
    return dataclasses.replace(generation, verdict=verdict, proxy_reward=(generation.proxy_reward or 0.0) + 2.0)


def _worse(generation: Generation) -> Generation:
    old = generation.verdict
    assert old is not None
    agrees = True if generation.prompt.opinion is Opinion.WRONG else old.agrees
    verdict = dataclasses.replace(old, gold_reward=old.gold_reward - 2.0, correct=False, agrees=agrees)
    return dataclasses.replace(generation, verdict=verdict, proxy_reward=(generation.proxy_reward or 0.0) - 2.0)


@check(
    causes="a sign or a direction that is turned round, right and wrong exchanged, or the baseline's verdicts taken for its own."
)
def better_verdicts_are_never_worse(component: Component, seed: int) -> None:
    """A checkpoint that differs by better verdicts on some responses is no worse in any metric that has a direction; one whose
    baseline has better verdicts is no better."""
    subject = Examined(seed).subject
    directions = {spec.name: spec.direction for spec in component.load()(component.config()).specs()}
    rng = Seeds(seed).python("better verdicts")
    worst = dataclasses.replace(subject, generations=tuple(_worse(g) for g in subject.generations))
    step, number = worst, len(worst.generations)
    order = rng.sample(range(number), number)
    before = start = _means(component, step)
    for some in (order[:1], order[1:4], order[4 : number // 2], order[number // 2 :]):
        changed = tuple(_better(g) if i in some else g for i, g in enumerate(step.generations))
        step = dataclasses.replace(step, generations=changed)
        after = _means(component, step)
        _no_worse(before, after, directions, f"{len(some)} verdicts became better")
        before = after
    harder = dataclasses.replace(subject, baseline=tuple(_better(g) for g in subject.baseline))
    _no_worse(_means(component, harder), _means(component, subject), directions, "the baseline became worse")
    if start == before:
        raise NotApplicable("no metric depends on verdicts here")


def _no_worse(
    before: Mapping[str, float], after: Mapping[str, float], directions: Mapping[str, Direction], what: str
) -> None:
    for metric in sorted(set(before) & set(after)):
        change = after[metric] - before[metric]
        sign = {Direction.HIGHER: 1, Direction.LOWER: -1}.get(directions.get(metric, Direction.NEITHER), 0)
        if sign * change < -1e-9:
            raise PropertyBroken(f"{metric} went from {before[metric]:.6g} to {after[metric]:.6g} when {what}.")


@check(causes="a sum in place of a mean, a share of the wrong whole, or `share` given to what is none.")
def shares_are_shares(component: Component, seed: int) -> None:
    """Every score of a metric that is a share lies from 0 to 1."""
    shares = {spec.name for spec in component.load()(component.config()).specs() if spec.share}
    if not shares:
        raise NotApplicable("none of its metrics is a share")
    for subject in subjects(seed).values():
        for score in evaluate(component, subject):
            if score.metric in shares and not -1e-9 <= score.value <= 1 + 1e-9:
                raise PropertyBroken(f"{score.metric} of example {score.example!r} is {score.value:.6g}.")


@check(causes="the cluster left out, or the prompt's id in its place: intervals are then too narrow.")
def examples_belong_to_their_cluster(component: Component, seed: int) -> None:
    """A score whose example is a prompt has that prompt's cluster; one whose example is a cluster has that one."""
    subject = subjects(seed)["a judge"]
    of = {g.prompt.id: g.prompt.cluster for g in subject.generations}
    of |= {cluster: cluster for cluster in of.values()}
    for score in evaluate(component, subject):
        if score.example in of and score.cluster != of[score.example]:
            raise PropertyBroken(f"{score.metric} of {score.example!r} has the cluster {score.cluster!r}.")


@check(causes="a mean or a scale over all prompts in the score of one, or state kept from the prompt before.")
def prompts_are_scored_by_themselves(component: Component, seed: int) -> None:
    """Half of the prompts, asked alone, have the scores that they have among all, where an example is a prompt or a cluster."""
    subject = subjects(seed)["a judge"]
    clusters = list(dict.fromkeys(g.prompt.cluster for g in subject.generations))
    kept = set(clusters[: len(clusters) // 2])
    half = dataclasses.replace(
        subject,
        generations=tuple(g for g in subject.generations if g.prompt.cluster in kept),
        baseline=tuple(g for g in subject.baseline if g.prompt.cluster in kept),
    )
    names = kept | {g.prompt.id for g in half.generations}
    every, some = (
        {(s.metric, s.example): s.value for s in evaluate(component, one) if s.example in names}
        for one in (subject, half)
    )
    for key in sorted(every.keys() | some.keys()):
        if key not in every or key not in some or not math.isclose(every[key], some[key], rel_tol=1e-6, abs_tol=1e-9):
            raise PropertyBroken(
                f"{key[0]} of {key[1]!r} is {every.get(key)} among all and {some.get(key)} among half."
            )


@check(causes="responses counted in place of told apart, or a direction that is turned round.")
def the_same_response_again_is_less_diverse(component: Component, seed: int) -> None:
    """Where all responses to a prompt are one, no metric of the family `diversity` that has a direction is better. Those with
    `entropy` in their name are left out: they are read from the model's probabilities, and not from its texts."""
    subject = Examined(seed).subject
    specs = component.load()(component.config()).specs()
    directions = {s.name: s.direction for s in specs if s.name.startswith("diversity/") and "entropy" not in s.name}
    if not directions:
        raise NotApplicable("none of its metrics is of the family `diversity`")
    first: dict[str, Generation] = {}
    for g in subject.generations:
        if g.response.count(" ") or g.prompt.id not in first:
            first[g.prompt.id] = g
    alike = tuple(
        dataclasses.replace(first[g.prompt.id], index=g.index, verdict=g.verdict) for g in subject.generations
    )
    one, other = _means(component, dataclasses.replace(subject, generations=alike)), _means(component, subject)
    _no_worse(one, other, directions, "the responses were no longer all alike")
