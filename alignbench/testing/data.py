"""Checks of a data source, on the data itself: what a run relies on before it has looked at a row."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

from alignbench.contracts import DataSource
from alignbench.errors import UserError
from alignbench.plugins import Component
from alignbench.records import Message, Prompt, Split
from alignbench.seeds import Seeds
from alignbench.testing.checks import CannotBeBuilt, CheckList, NotApplicable, PropertyBroken

SHOWN = 200
"""Prompts whose verdicts are asked for."""
PARTS: dict[str, Callable[[DataSource], object]] = {
    "training prompts": lambda data: list(data.prompts(Split.TRAIN)),
    "evaluation prompts": lambda data: list(data.prompts(Split.EVALUATION)),
    "lessons": lambda data: list(data.lessons()),
    "demonstrations": lambda data: list(data.demonstrations()),
    "rankings": lambda data: list(data.rankings()),
    "labels": lambda data: list(data.labelled()),
}

check = CheckList()


@functools.lru_cache(maxsize=1)
def read(component: Component, seed: int) -> DataSource:
    return build(component, seed)


def build(component: Component, seed: int) -> DataSource:
    """The data, read. Raises CannotBeBuilt."""
    try:
        made: DataSource = component.load()(component.config(), seeds=Seeds(seed).child("data"))
    except UserError as error:
        raise CannotBeBuilt(str(error)) from error
    return made


def taught(data: DataSource) -> Iterator[tuple[str, Prompt]]:
    """Every prompt that something can be trained on, and by what."""
    yield from (("a training prompt", prompt) for prompt in data.prompts(Split.TRAIN))
    yield from (("a lesson", one.prompt) for one in data.lessons())
    yield from (("a demonstration", one.prompt) for one in data.demonstrations())


def everything(data: DataSource) -> Iterator[Prompt]:
    yield from data.prompts(Split.EVALUATION)
    yield from (prompt for _, prompt in taught(data))
    yield from (ranking.prompt for ranking in data.rankings())
    yield from (one.prompt for one in data.labelled())


@check(causes="torch's or random's global generator, the order of a set or of a folder, or today's date.")
def same_seed_same_data(component: Component, seed: int) -> None:
    """The same seeds give the same prompts, demonstrations, rankings and labels, in the same order."""
    one, other = build(component, seed), build(component, seed)
    for name, part in PARTS.items():
        if part(one) != part(other):
            raise PropertyBroken(f"Its {name} are not the same a second time.")


@check(causes="a split by row where several rows have one prompt, or ids that count from 0 in each split.")
def what_is_held_out_teaches_nothing(component: Component, seed: int) -> None:
    """There are prompts of both splits, and no evaluation prompt is a training prompt, a lesson's or a demonstration's."""
    data = read(component, seed)
    held_out = {prompt.id for prompt in data.prompts(Split.EVALUATION)}
    if not held_out or not data.prompts(Split.TRAIN):
        raise PropertyBroken("It has no training or no evaluation prompts.")
    for what, prompt in taught(data):
        if prompt.id in held_out:
            raise PropertyBroken(f"The evaluation prompt {prompt.id!r} is {what}'s too.")


@check(causes="an id that is a row's number in its file, or the beginning of a text.")
def an_id_is_one_conversation(component: Component, seed: int) -> None:
    """Prompts with the same id have the same messages, whatever they come with; no conversation is empty."""
    known: dict[str, tuple[Message, ...]] = {}
    for prompt in everything(read(component, seed)):
        if not prompt.messages:
            raise PropertyBroken(f"The prompt {prompt.id!r} has no messages.")
        if known.setdefault(prompt.id, prompt.messages) != prompt.messages:
            raise PropertyBroken(f"The id {prompt.id!r} stands for two conversations.")


@check(causes="a verdict that is drawn anew, or None for prompts of one split.")
def truth_is_known_of_all_or_of_none(component: Component, seed: int) -> None:
    """`judge` gives a verdict on every prompt, the same each time, or on none."""
    data = read(component, seed)
    asked = list(itertools.islice(data.prompts(Split.EVALUATION), SHOWN))
    asked += itertools.islice(data.prompts(Split.TRAIN), SHOWN)
    verdicts, again = ([data.judge(prompt, "", finished=True) for prompt in asked] for _ in range(2))
    unknown = sum(verdict is None for verdict in verdicts)
    if unknown == len(asked):
        raise NotApplicable("it does not know the truth")
    if unknown:
        raise PropertyBroken(f"It gives no verdict on {unknown} of {len(asked)} prompts, and one on the others.")
    if verdicts != again:
        raise PropertyBroken("A verdict on the same response is another the second time.")
