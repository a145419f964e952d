"""Checks of an annotator: what a ranking is, and what it must not depend on. What it states of itself: annotators/probability.py."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from alignbench.contracts import Annotator, DataSource
from alignbench.contracts.known import Known
from alignbench.errors import UserError
from alignbench.plugins import Component, Kind, registry
from alignbench.records import Prompt, Ranking, Split
from alignbench.seeds import Seeds
from alignbench.selection import with_defaults
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken, alike
from alignbench.testing.known import known, with_settings
from alignbench.testing.world import BradleyTerry, World, WorldData

ASKED, MORE, RESPONSES, AGAIN = 12, 60, 4, 8

check = CheckList()
Question = tuple[Prompt, tuple[str, ...], tuple[bool, ...]]


@dataclass(frozen=True)
class Bench:
    """Data that the annotator serves, with what it is asked about."""

    component: Component
    data: DataSource
    questions: tuple[Question, ...]
    known: Known | None = None

    def build(self, seed: int) -> Annotator:
        made: Annotator = self.component.load()(
            self.component.config(), data=self.data, seeds=Seeds(seed).child("annotator")
        )
        return made


@functools.lru_cache(maxsize=4)
def benches(component: Component, seed: int) -> tuple[Bench, ...]:
    """The annotator as it stands and with all settings that its author knows, each on the first data that it takes: the kit's own, or a
    data source of its own package. Raises NotApplicable where it takes none."""
    found, refused = [], "there is none"
    for one in (None, *known(component)):
        for data in _sources(component, seed):
            try:
                tried = component if one is None else with_settings(component, one)
                bench = Bench(tried, data, _questions(data, seed), one)
                bench.build(seed)
            except UserError as error:
                refused = str(error)
                continue
            found.append(bench)
            break
    if not found:
        raise NotApplicable(f"no data that the kit has serves it: {refused}")
    return tuple(found)


@functools.lru_cache(maxsize=2)
def _sources(component: Component, seed: int) -> tuple[DataSource, ...]:
    package = component.config.__module__.partition(".")[0]
    world = World(seed, prompts=6, tokens=3)
    annotator = BradleyTerry(world, seeds=world.seeds)
    rankings = world.rankings(ASKED, RESPONSES, world.seeds.torch("recorded"), annotator)
    found: list[DataSource] = [WorldData(world, rankings=rankings)]
    for other in registry().of(Kind.DATA):
        if other.target.startswith(f"{package}."):
            with contextlib.suppress(UserError, TypeError):  # a TypeError: its config has no default for something
                found.append(other.load()(other.config(), seeds=Seeds(seed).child("data")))
    return tuple(found)


def _questions(data: DataSource, seed: int, count: int = ASKED) -> tuple[Question, ...]:
    """Responses of demonstrations (where there are none, the words of prompts), some of them cut off, one of them twice, and one that
    is empty. Raises UserError where there is no prompt."""
    rng = Seeds(seed).python("questions")
    if not (asked := data.prompts(Split.TRAIN)):
        raise UserError("the data has no training prompts")
    prompts = [asked[i % len(asked)] for i in range(count)]
    shown = data.demonstrations()
    said = [one.response for one in shown] or [prompt.text for prompt in prompts]
    own: dict[tuple[Any, ...], list[str]] = {}
    for one in shown[:4000]:
        own.setdefault(one.prompt.messages, []).append(one.response)
    found = []
    for number, prompt in enumerate(prompts):
        texts = [rng.choice(said) for _ in range(RESPONSES)]
        if answer := (prompt.reference.answer if prompt.reference else ""):
            texts[0] = answer
        elif prompt.messages in own:
            texts[0] = rng.choice(own[prompt.messages])
        if number % 4 == 1:
            texts[2] = texts[1]
        if number % 6 == 2:
            texts[3] = ""
        ends = [rng.random() < 0.75 for _ in texts]
        if number % 4 == 1:
            ends[2] = ends[1]
        found.append((prompt, tuple(texts), tuple(ends)))
    return tuple(found)


def asking(component: Component, seed: int) -> tuple[Bench, ...]:
    """Raises NotApplicable for an annotator that brings rankings of its own."""
    if not component.load().samples_responses:
        raise NotApplicable("it brings rankings of its own and ranks no responses")
    return benches(component, seed)


def _ranks(annotator: Annotator, questions: Sequence[Question]) -> list[tuple[int, ...]]:
    prompts, texts, ends = zip(*questions, strict=True)
    return annotator.rank_all(prompts, texts, finished=ends)


def _well_formed(ranks: Any, count: int) -> None:
    if not isinstance(ranks, tuple) or len(ranks) != count:
        raise PropertyBroken(f"It gave {ranks!r} for {count} responses: a tuple of {count} ranks.")
    if not all(isinstance(rank, int) and not isinstance(rank, bool) for rank in ranks) or min(ranks) != 0:
        raise PropertyBroken(f"It gave {ranks!r}: ranks are whole numbers, and the best is 0.")


@check(causes="a list or positions in place of ranks (argsort is not its own inverse), or ranks that begin at 1.")
def one_rank_a_response(component: Component, seed: int) -> None:
    """A ranking is a tuple of whole numbers, one for each response; the best has 0."""
    for bench in asking(component, seed):
        annotator = bench.build(seed)
        for prompt, texts, ends in bench.questions:
            for size in (1, RESPONSES):
                _well_formed(annotator.rank(prompt, texts[:size], finished=ends[:size]), size)
        for ranks in _ranks(bench.build(seed), bench.questions):
            _well_formed(ranks, RESPONSES)


@check(causes="torch's or random's global generator, the clock, or the order of a set.")
def same_seed_same_ranks(component: Component, seed: int) -> None:
    """Built anew with the same seeds, it ranks alike."""
    for bench in asking(component, seed):
        if (one := _ranks(bench.build(seed), bench.questions)) != (other := _ranks(bench.build(seed), bench.questions)):
            raise PropertyBroken(f"It ranked {one[:2]} at first and {other[:2]} the second time.")


@check(causes="noise that is drawn for a seed of its own, or for none.")
def another_seed_other_noise(component: Component, seed: int) -> None:
    """Where it states probabilities between 0 and 1, other seeds give other ranks."""
    found = False
    for bench in asking(component, seed):
        first = bench.build(seed)
        unsure = [p for *_, p in stated_pairs(first, bench.questions) if 0.05 < p < 0.95 and p != 0.5]
        if len(unsure) < 5:
            continue
        found = True
        plain = _ranks(first, bench.questions)
        if all(_ranks(bench.build(seed + more), bench.questions) == plain for more in range(1, 9)):
            raise PropertyBroken("Nine seeds gave the same ranks.")
    if not found:
        raise NotApplicable("it states no probability between 0 and 1")


@check(
    causes="a position that breaks ties, noise that belongs to a place in place of a response, or names mixed up after sorting."
)
def order_of_responses_is_irrelevant(component: Component, seed: int) -> None:
    """In another order each response keeps its rank, where no new chance comes in."""
    for bench in asking(component, seed):
        annotator, rng = bench.build(seed), Seeds(seed).python("order of responses")
        if _ranks(annotator, bench.questions) != _ranks(annotator, bench.questions):
            continue  # it draws anew: its frequencies are held to what it states
        for prompt, texts, ends in bench.questions:
            ranks = annotator.rank(prompt, texts, finished=ends)
            order = rng.sample(range(len(texts)), len(texts))
            wanted = tuple(ranks[i] for i in order)
            for _ in range(AGAIN):  # rare chance is met once, an order that matters each time
                mixed = annotator.rank(prompt, tuple(texts[i] for i in order), finished=tuple(ends[i] for i in order))
                if mixed == wanted:
                    break
            else:
                raise PropertyBroken(f"{texts!r} have the ranks {ranks}; in the order {order}, {mixed}.")


@check(
    causes="answers of several questions given back in the wrong order, or a question that shifts the next one's chance."
)
def many_are_ranked_as_one(component: Component, seed: int) -> None:
    """`rank_all` gives what `rank` gives, question by question; nothing that it is given changes."""
    for bench in asking(component, seed):
        at_once, singly = bench.build(seed), bench.build(seed)
        texts, ends = [list(texts) for _, texts, _ in bench.questions], [list(ends) for *_, ends in bench.questions]
        ranked = at_once.rank_all([question[0] for question in bench.questions], texts, finished=ends)
        one_by_one = [singly.rank(prompt, text, finished=end) for prompt, text, end in bench.questions]
        if ranked != one_by_one:
            row = next(i for i, (a, b) in enumerate(zip(ranked, one_by_one, strict=False)) if a != b)
            raise PropertyBroken(f"Question {row} is ranked {ranked[row]} among others and {one_by_one[row]} alone.")
        if texts != [list(q[1]) for q in bench.questions] or ends != [list(q[2]) for q in bench.questions]:
            raise PropertyBroken("The responses that it was given have changed.")


def stated_pairs(annotator: Annotator, questions: Sequence[Question]) -> Iterator[tuple[Question, int, int, float]]:
    """Each pair of each question with the probability that the first is preferred, where it is known."""
    for question in questions:
        prompt, texts, ends = question
        for a, b in combinations(range(len(texts)), 2):
            p = annotator.preference(prompt, texts[a], texts[b], finished=(ends[a], ends[b]))
            if p is not None:
                yield question, a, b, p


@check(causes="an option that is read nowhere, or a literal in its place.")
def options_change_its_taste(component: Component, seed: int) -> None:
    """Each float or boolean option, changed, changes a probability, a feature or a rank under some settings that are known."""
    inert: Mapping[str, str] = getattr(component.config, "inert", {})
    default: Any = component.config()
    names = [f.name for f in dataclasses.fields(default) if isinstance(getattr(default, f.name), bool | float)]
    if not (names := [name for name in names if name not in inert]):
        raise NotApplicable("it has no such option")
    for name in names:
        tried = _tried(component, seed, name)
        if next(tried, True) is False and not any(tried):  # True: all that is tried is refused
            raise PropertyBroken(f"Another {name} changes nothing.")


def _tried(component: Component, seed: int, name: str) -> Iterator[bool]:
    """On the questions, and on more of them, of which some may show what those did not."""
    for more in (False, True):
        for bench in benches(component, seed):
            questions = _questions(bench.data, seed + 1, MORE) if more else bench.questions
            yield from _changes(dataclasses.replace(bench, questions=questions), name)


def _changes(bench: Bench, name: str) -> Iterator[bool]:
    """Whether each other value of the option changes anything; values that are refused say nothing."""
    old = getattr(bench.component.config(), name)
    others = [not old] if isinstance(old, bool) else [1.5 * old or 0.5, 0.5 * old or -0.5]
    plain = _taste(bench, {})
    for other in others:
        if plain is not None and (found := _taste(bench, {name: other})) is not None:
            yield not alike(found, plain)


def _taste(bench: Bench, changes: Mapping[str, Any]) -> Any:
    """What it says of the questions; None where it refuses."""
    try:
        changed = with_defaults(bench.component, changes) if changes else bench.component
        annotator = dataclasses.replace(bench, component=changed).build(0)
        if not annotator.samples_responses:
            return annotator.recorded()
        stated = [p for *_, p in stated_pairs(annotator, bench.questions)]
        twice = [_ranks(annotator, bench.questions) for _ in range(2)]
        return stated, twice, list(annotator.report().values())
    except UserError:
        return None


# What is known of it


@check(causes="ranks the wrong way round, a tie that is broken, or a response that was cut off taken for a whole one.")
def ranks_are_as_stated(component: Component, seed: int) -> None:
    """Where its author states the ranks, they are these."""
    told = [bench for bench in benches(component, seed) if bench.known and bench.known.gives]
    if not told:
        raise NotApplicable("its author states no ranks (contracts.known)")
    for bench in told:
        assert bench.known is not None
        gives, annotator, config = bench.known.gives, bench.build(seed), bench.component.config()
        assert gives is not None
        if not annotator.samples_responses:
            if wrong := gives(config, bench.data, annotator.recorded()):
                raise PropertyBroken(str(wrong))
            continue
        for prompt, texts, ends in bench.questions:
            ranks, wanted = (
                annotator.rank(prompt, texts, finished=ends),
                tuple(gives(config, bench.data, prompt, texts, ends)),
            )
            if ranks != wanted:
                raise PropertyBroken(f"{texts!r} (finished: {ends}) are ranked {ranks}, not {wanted}.")


@check(causes="rankings without two responses, or an order of a file's rows that is not kept.")
def recorded_rankings_are_whole(component: Component, seed: int) -> None:
    """Rankings that it brings have as many ranks, and as many `finished`, as responses; the best has 0; twice asked they are the same."""
    if component.load().samples_responses:
        raise NotApplicable("it ranks what is sampled")
    for bench in benches(component, seed):
        annotator = bench.build(seed)
        found: Sequence[Ranking] = annotator.recorded()
        if not found or list(found) != list(bench.build(seed).recorded()):
            raise PropertyBroken(f"It brought {len(found)} rankings, and others the second time.")
        for ranking in found:
            _well_formed(ranking.ranks, len(ranking.responses))
            if ranking.finished and len(ranking.finished) != len(ranking.responses):
                raise PropertyBroken(
                    f"A ranking has {len(ranking.finished)} marks for {len(ranking.responses)} responses."
                )
