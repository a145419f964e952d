"""Checks of the numbers that a reward source gives: those that its author states, and what its options do to them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignbench.contracts import RewardSource
from alignbench.contracts.known import Known
from alignbench.errors import UserError
from alignbench.optimizer_config import OptimizerConfig
from alignbench.plugins import Component
from alignbench.records import Samples, Sequences
from alignbench.scoring import checked_parts
from alignbench.selection import with_defaults
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken, alike
from alignbench.testing.known import stated, with_settings
from alignbench.testing.rewards import base as reward
from alignbench.testing.world import World

SHARED = {field.name for field in dataclasses.fields(OptimizerConfig)}
"""Options of whatever is trained: the checks of fitting hold it to those."""

check = CheckList()


@check(
    causes="a weight, a sign or an offset that is wrong, a wrong part, or what stands before or after the response counted."
)
def scores_are_as_stated(component: Component, seed: int) -> None:
    """Its scores are the numbers that its author states of them."""
    for one in stated(component, "gives"):
        made = reward.make(tuned := with_settings(component, one), seed)
        fresh = reward.samples(made.world, made.policy, 48, "stated")
        assert one.gives is not None
        given = one.gives(reward.config_of(tuned), made.policy, reward.TellingData(made.world), fresh)
        wanted = torch.tensor(list(given)).double()
        _compare(made.source.score(fresh), wanted, [f"{text!r}" for text in fresh.texts], one)


@check(causes="a verdict given to the wrong side, an order in which nobody was asked, or a tie taken for a win.")
def comparisons_are_as_stated(component: Component, seed: int) -> None:
    """Which of two responses it prefers is what its author states."""
    for one in stated(component, "compares"):
        made = reward.make(tuned := with_settings(component, one), seed)
        first, second = (reward.samples(made.world, made.policy, 24, f"compared {side}") for side in "ab")
        assert one.compares is not None
        wanted = torch.tensor(list(one.compares(reward.config_of(tuned), first, second))).double()
        shown = [f"{a!r} against {b!r}" for a, b in zip(first.texts, second.texts, strict=True)]
        _compare(made.source.compare(first, second), wanted, shown, one)


@check(
    causes="a weight that is used twice or not at all, parts of other rows, or a score that is not made of its parts."
)
def parts_add_up_to_the_score(component: Component, seed: int) -> None:
    """Where a score is a sum of parts, they have names of their own and add up to it, response by response."""
    found = False
    for tried in reward.variants(component, seed) or (component,):
        made = reward.fitted(tried, seed)
        fresh = reward.samples(made.world, made.policy, 24, "parts")
        try:
            if (parts := checked_parts(made.source, fresh)) is None:
                continue
            scores = made.source.score(fresh)
        except UserError as error:
            raise NotApplicable(f"it cannot score the kit's data: {error}") from error
        found = True
        wanted = parts.values.double() @ torch.tensor(parts.weights).double()
        if not float((scores - wanted).abs().max()) <= reward.SAME * max(float(wanted.abs().max()), 1.0):
            raise PropertyBroken(
                f"The scores are {scores.tolist()[:3]} where the parts {', '.join(parts.names)} add up to {wanted.tolist()[:3]}."
            )
    if not found:
        raise NotApplicable("its score is one number")


@check(causes="an answer that is looked for in the wrong place, or a response that was cut off taken for a whole one.")
def known_cases_get_their_scores(component: Component, seed: int) -> None:
    """Responses whose score its author knows get that score."""
    for one in stated(component, "cases"):
        source = _built(with_settings(component, one), seed)
        rows = one.cases
        texts = tuple(row.response for row in rows)
        finished = torch.tensor([row.finished for row in rows])
        samples = Samples(tuple(row.prompt for row in rows), texts, _tokens(texts, finished), finished)
        wanted = torch.tensor([row.value for row in rows]).double()
        _compare(source.score(samples), wanted, [f"{row.response!r} to {row.prompt.text!r}" for row in rows], one)


@check(causes="scores subtracted the wrong way round, a tie that is none, or pairs that are matched with others.")
def comparing_takes_no_side(component: Component, seed: int) -> None:
    """`compare` gives 0 to 1, the other way round the rest of 1, and .5 for a response and itself."""
    for tried in reward.variants(component, seed) or (component,):
        made = reward.fitted(tried, seed)
        first, second = (reward.samples(made.world, made.policy, 24, f"compared {side}") for side in "ab")
        try:
            there, back = made.source.compare(first, second), made.source.compare(second, first)
            same = made.source.compare(first, first)
        except UserError as error:
            raise NotApplicable(f"it cannot score the kit's data: {error}") from error
        if there.shape != (len(first),) or bool(((there < 0) | (there > 1)).any()):
            raise PropertyBroken(f"It gave {there.tolist()[:4]} of shape {tuple(there.shape)} for {len(first)} pairs.")
        if float((there + back - 1).abs().nan_to_num().max()) > 1e-6:
            raise PropertyBroken(
                f"{there.tolist()[:4]} and, the other way round, {back.tolist()[:4]} do not add up to 1."
            )
        if odd := [value for value in same.tolist() if value != 0.5 and not math.isnan(value)]:  # NaN: it cannot tell
            raise PropertyBroken(f"A response is preferred to itself by {odd[0]:g}.")
        _ordered(made.source, first, second, there)


def _ordered(source: RewardSource, first: Samples, second: Samples, there: Tensor) -> None:
    """Of a source that does not compare in a way of its own."""
    if type(source).compare is not RewardSource.compare:
        return
    gap = source.score(first) - source.score(second)
    if not torch.equal(there, 0.5 * (1 + gap.sign())):
        raise PropertyBroken("A response with the higher score is not preferred.")


@check(causes="an option that is read nowhere, or a literal in its place.")
def options_change_scores(component: Component, seed: int) -> None:
    """Each float or boolean option, changed, changes a score, a comparison or its report under some settings that are known."""
    candidates = reward.variants(component, seed)
    if not candidates:
        raise NotApplicable("it cannot be built on the kit's data")
    inert: Mapping[str, str] = getattr(component.config, "inert", {})
    plain = functools.cache(lambda place: _outcome(candidates[place], seed))
    for name in _names(component):
        if name in inert or name in SHARED:
            continue
        tried = False
        for place, each in enumerate(candidates):
            acts = _acts(each, name, seed, partial(plain, place))
            tried = tried or acts is not None
            if acts:
                break
        else:
            if tried:
                raise PropertyBroken(f"Another {name} changes nothing.")


def _names(component: Component) -> list[str]:
    default: Any = component.config()
    if not (
        found := [f.name for f in dataclasses.fields(default) if isinstance(getattr(default, f.name), bool | float)]
    ):
        raise NotApplicable("it has no such option")
    return found


def _acts(component: Component, name: str, seed: int, plain: Callable[[], list[float] | None]) -> bool | None:
    """Whether another value of the option changes anything of the `plain` outcome; None where it refuses those that are tried."""
    old = getattr(component.config(), name)
    for value in [not old] if isinstance(old, bool) else [0.5 * old or 0.1, 1.5 * old or -0.1]:
        if (before := plain()) is not None and (found := _outcome(component, seed, {name: value})) is not None:
            return not alike(found, before)
    return None


def _outcome(component: Component, seed: int, changes: Mapping[str, Any] | None = None) -> list[float] | None:
    """Its scores, its comparisons and its report; None where it refuses."""
    try:
        made = reward.make(with_defaults(component, changes) if changes else component, seed)
        first, second = (reward.samples(made.world, made.policy, 24, f"options {side}") for side in "ab")
        scores = [*made.source.score(first).tolist(), *made.source.compare(first, second).tolist()]
        return [*scores, *made.source.report().values()]
    except UserError:
        return None


def _built(component: Component, seed: int) -> RewardSource:
    world = World(seed)
    return reward.build(component, world, world.policy(reward_role=False), seed)


def _tokens(texts: tuple[str, ...], finished: Tensor) -> Sequences:
    """A token for each word, and one for the end: whoever reads texts does not look at them."""
    lengths = torch.tensor([len(text.split()) for text in texts]) + finished
    mask = torch.arange(int(lengths.max().clamp(min=1)))[None] < lengths[:, None]
    one = torch.ones(len(texts), 1, dtype=torch.long)
    return Sequences(one, one, mask.long(), mask)


def _compare(scores: Tensor, wanted: Tensor, shown: list[str], one: Known) -> None:
    scale = max(float(wanted.abs().max()), 1.0)
    gap = (scores.double() - wanted).abs()
    row = int(gap.nan_to_num(math.inf).argmax())
    if not float(gap[row]) <= one.tolerance * scale:
        under = ", ".join(f"{name}={value}" for name, value in one.options.items())
        raise PropertyBroken(
            f"{shown[row]} scores {float(scores[row]):g}, not {float(wanted[row]):g}{f' (under {under})' if under else ''}."
        )
