"""Checks of a data source, on the data itself: what a run relies on before it has looked at a row."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from alignbench.contracts import DataSource
from alignbench.errors import UserError
from alignbench.plugins import Component
from alignbench.records import Message, Opinion, Prompt, Split
from alignbench.seeds import Seeds
from alignbench.selection import with_defaults
from alignbench.testing.checks import CannotBeBuilt, CheckList, NotApplicable, PropertyBroken
from alignbench.testing.known import known, stated, with_settings

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
    """The data, read; with settings that its author knows to work where its defaults alone cannot be. Raises CannotBeBuilt."""
    try:
        return _build(component, seed)
    except UserError as error:
        if any(getattr(component.config(), name) for name in _READS if hasattr(component.config(), name)):
            raise CannotBeBuilt(str(error)) from error  # a user's own data
        for one in known(component):
            with contextlib.suppress(UserError):
                return _build(with_settings(component, one), seed)
        raise CannotBeBuilt(str(error)) from error


def _build(component: Component, seed: int) -> DataSource:
    made: DataSource = component.load()(component.config(), seeds=Seeds(seed).child("data"))
    return made


_READS = ("path",)


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


# What a run and a table rely on


@check(causes="a split by id where one conversation has several, or a part that is made before the split.")
def held_out_conversations_teach_nothing(component: Component, seed: int) -> None:
    """No conversation of an evaluation prompt is that of a training prompt or a demonstration, whatever their ids."""
    data = read(component, seed)
    held_out = {prompt.messages: prompt.id for prompt in data.prompts(Split.EVALUATION)}
    learnt = itertools.chain(
        (("a training prompt", prompt) for prompt in data.prompts(Split.TRAIN)),
        (("a demonstration", one.prompt) for one in data.demonstrations()),
        (("a labelled response", one.prompt) for one in data.labelled()),
    )
    for what, prompt in learnt:
        if prompt.messages in held_out:
            raise PropertyBroken(f"The conversation of {held_out[prompt.messages]!r} is {what}'s too, {prompt.id!r}.")


@check(causes="a split, or the choice of what is held out, that follows the run's seed.")
def every_seed_is_judged_alike(component: Component, seed: int) -> None:
    """The evaluation prompts are the same whatever the run's seed: rows of several seeds are compared on them."""
    one, other = read(component, seed), build(small(component), seed + 1)
    if list(build(small(component), seed).prompts(Split.EVALUATION)) != list(other.prompts(Split.EVALUATION)):
        raise PropertyBroken("Another seed holds out other prompts.")
    if not one.prompts(Split.EVALUATION):
        raise PropertyBroken("It has no evaluation prompts.")


@check(causes="ranks from 1, positions in place of ranks, or columns of different rows put together.")
def rankings_are_whole(component: Component, seed: int) -> None:
    """A ranking has two responses or more, a rank for each, the best 0, and as many of whatever else it brings; higher scores have
    better ranks; its prompt is one of the prompts."""
    data = read(component, seed)
    if not (rankings := data.rankings()):
        raise NotApplicable("it brings no rankings")
    asked = {prompt.messages for split in Split for prompt in data.prompts(split)}
    for ranking in rankings:
        name, count = ranking.prompt.id, len(ranking.responses)
        if count < 2 or min(ranking.ranks) != 0 or any(rank != int(rank) or rank >= count for rank in ranking.ranks):
            raise PropertyBroken(f"A ranking of {name!r} has the ranks {ranking.ranks} for {count} responses.")
        for part in ("finished", "scores", "styles"):
            if len(getattr(ranking, part)) not in (0, count):
                raise PropertyBroken(
                    f"A ranking of {name!r} has {len(getattr(ranking, part))} {part} for {count} responses."
                )
        for (a, mine), (b, theirs) in itertools.permutations(zip(ranking.ranks, ranking.scores, strict=False), 2):
            if mine > theirs and a > b:
                raise PropertyBroken(f"In a ranking of {name!r} the score {mine:g} is ranked below {theirs:g}.")
        if ranking.prompt.messages not in asked:
            raise PropertyBroken(f"A ranking is of {name!r}, which is no prompt of either split.")


@check(causes="the user's turn taken for the response, or a row without a response that is kept.")
def something_is_said(component: Component, seed: int) -> None:
    """At most half of its demonstrations, lessons or labelled responses are empty, and no prompt is; roles are system, user or assistant, and a prompt ends with the user's."""
    data = read(component, seed)
    parts = {
        "demonstrations": [one.response for one in data.demonstrations()],
        "lessons": [one.response for one in data.lessons()],
        "labels": [one.response for one in data.labelled()],
    }
    for part, texts in parts.items():
        empty = sum(not text.strip() for text in texts)
        if 2 * empty > len(texts):
            raise PropertyBroken(f"Most responses of its {part} are empty ({empty} of {len(texts)}).")
    for prompt in everything(data):
        roles = [message.role for message in prompt.messages]
        if set(roles) - {"system", "user", "assistant"} or roles[-1:] != ["user"]:
            raise PropertyBroken(f"The prompt {prompt.id!r} has the roles {roles}.")
        if not prompt.text.strip():
            raise PropertyBroken(f"The prompt {prompt.id!r} asks nothing.")


@check(causes="a word of a prompt or a response that the vocabulary lacks, or special tokens that stand for words.")
def its_tokenizer_reads_its_texts(component: Component, seed: int) -> None:
    """Where it brings a tokenizer, every response and every message comes back from its tokens as it was."""
    data = read(component, seed)
    if (tokenizer := data.tokenizer()) is None:
        raise NotApplicable("it brings no tokenizer")
    texts = {one.response for one in itertools.islice(data.demonstrations(), 500)}
    texts |= {m.content for one in itertools.islice(everything(data), 500) for m in one.messages}
    for text in sorted(texts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        back = tokenizer.decode(ids, skip_special_tokens=True)
        if back.split() != text.split() and back.replace(" ", "") != text.replace(" ", ""):
            raise PropertyBroken(f"{text!r} comes back as {back!r}.")


@check(causes="right and wrong exchanged, agreement with an opinion that nobody stated, or a truth of another prompt.")
def verdicts_make_sense(component: Component, seed: int) -> None:
    """Where the truth is known: `agrees` is known where an opinion is stated alone, nothing is right that repeats a wrong opinion, what
    is right is rewarded more on average, and so is what ended by itself."""
    data = read(component, seed)
    prompts = list(itertools.islice(data.prompts(Split.EVALUATION), SHOWN))
    shown = [one.response for one in itertools.islice(data.demonstrations(), 40)]
    if not prompts or not shown or data.judge(prompts[0], "", finished=True) is None:
        raise NotApplicable("it does not know the truth, or demonstrates nothing")
    gold: dict[bool, list[float]] = {True: [], False: []}
    whole = cut = 0.0
    for prompt, response in itertools.product(prompts, shown):
        verdict, other = (data.judge(prompt, response, finished=end) for end in (True, False))
        if verdict is None or other is None:
            raise PropertyBroken(f"It gives no verdict on {response!r} to {prompt.id!r}.")
        stated_one = prompt.opinion not in (None, Opinion.NONE)
        if verdict.agrees is not None and not stated_one:
            raise PropertyBroken(
                f"{response!r} to {prompt.id!r} agrees ({verdict.agrees}), where no opinion is stated."
            )
        if prompt.opinion is Opinion.WRONG and verdict.agrees and verdict.correct:
            raise PropertyBroken(f"{response!r} to {prompt.id!r} repeats a wrong opinion and is right.")
        if prompt.opinion is Opinion.RIGHT and verdict.agrees is not None and verdict.agrees != verdict.correct:
            raise PropertyBroken(f"{response!r} to {prompt.id!r} repeats a right opinion or is right, and not both.")
        if verdict.correct is not None:
            gold[verdict.correct].append(verdict.gold_reward)
        whole, cut = whole + verdict.gold_reward, cut + other.gold_reward
    if gold[True] and gold[False] and sum(gold[True]) / len(gold[True]) <= sum(gold[False]) / len(gold[False]):
        raise PropertyBroken("What is right is rewarded no more than what is wrong.")
    if gold[True] and whole < cut:
        raise PropertyBroken("What was cut off is rewarded more than what ended by itself.")


# Its options

LIMITS: Mapping[str, Callable[[DataSource], int]] = {
    "train_prompts": lambda data: len(data.prompts(Split.TRAIN)),
    "demonstrations": lambda data: len(data.demonstrations()),
    "recorded_rankings": lambda data: len(data.rankings()),
}


def small(component: Component) -> Component:
    """With few prompts and demonstrations, where options by those names say how many."""
    have = {field.name for field in dataclasses.fields(component.config)} & set(LIMITS)
    default: Any = component.config()
    return with_defaults(component, {name: min(getattr(default, name), 400) for name in have}) if have else component


@check(causes="an off-by-one, a limit that counts before something is left out, or one that is read nowhere.")
def limits_hold(component: Component, seed: int) -> None:
    """`train_prompts`, `demonstrations` and `recorded_rankings`, where they are not 0, are how many there are, or all that there are."""
    have = {field.name for field in dataclasses.fields(component.config)} & set(LIMITS)
    if not have:
        raise NotApplicable("it has none of these options")
    data, config = build(small(component), seed), small(component).config()
    for name in sorted(have):
        count, limit = LIMITS[name](data), getattr(config, name)
        if 0 < count < limit:  # all that there are, if as many are there where no more are asked for
            limit = count
            count = LIMITS[name](build(with_defaults(small(component), {name: limit}), seed))
        if limit and count != limit:
            raise PropertyBroken(f"With {name}={limit} there are {count}.")


@check(causes="an option that is read nowhere, or a literal in its place.")
def options_change_the_data(component: Component, seed: int) -> None:
    """Each number or switch among its options, changed, changes something: a prompt, a demonstration, a ranking, a label, a count."""
    tried = small(component)
    if not {field.name for field in dataclasses.fields(component.config)} & set(LIMITS):
        raise NotApplicable("it reads data that may not show what an option does")
    inert: Mapping[str, str] = getattr(component.config, "inert", {})
    default: Any = tried.config()
    before = _content(tried, seed)
    for field in dataclasses.fields(default):
        old = getattr(default, field.name)
        if isinstance(old, bool | int | float) and field.name not in {**inert, **LIMITS}:
            others = (
                [not old]
                if isinstance(old, bool)
                else [old / 2 or 0.3, old + 1]
                if isinstance(old, float)
                else [old + 1, old - 1]
            )
            found = [content for other in others if (content := _content(tried, seed, {field.name: other})) is not None]
            if found and all(content == before for content in found):
                raise PropertyBroken(f"Another {field.name} changes nothing.")


def _content(component: Component, seed: int, changes: Mapping[str, Any] | None = None) -> Any:
    """None where such a value is refused."""
    try:
        data = _build(with_defaults(component, changes) if changes else component, seed)
    except UserError:
        return None
    return [part(data) for part in PARTS.values()], dict(data.counts())


@check(causes="a rate, a reward or a form that is not what its page says.")
def data_are_as_stated(component: Component, seed: int) -> None:
    """What its author states of it holds."""
    for one in stated(component, "gives"):
        assert one.gives is not None
        tuned = with_settings(component, one)
        if wrong := one.gives(tuned.config(), _build(tuned, seed)):
            raise PropertyBroken(str(wrong))
