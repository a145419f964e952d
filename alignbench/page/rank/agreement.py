"""How far people agree, with one another and with what is known to be right, and whether a response's place sways them.

All figures are of pairs of responses: a ranking of K says of each of its pairs which is better, or that they tie."""

from __future__ import annotations

import itertools
import math
import statistics
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import krippendorff
import numpy as np

from alignbench.page.rank.items import Item
from alignbench.page.rank.store import Answer
from alignbench.seeds import Seeds

DRAWS = 400
"""Bootstrap draws of items behind an interval."""
VALUES = (0.0, 0.5, 1.0)
"""Of a pair: the first is worse, as good, better."""
T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """`low` and `high` bound 95%: percentiles of a bootstrap over items (Efron & Tibshirani 1993, chapter 13). `items`: how many it
    is from. None: too few to tell."""

    value: float | None
    low: float | None
    high: float | None
    items: int


@dataclass(frozen=True)
class Person:
    """`seconds`: the median an item; `gold`: share of the pairs of gold questions that they ordered as it is right; `first`: how
    often they prefer the response shown first to one shown later; unswayed people do half of the time."""

    name: str
    answers: int
    cannot_judge: int
    seconds: float | None
    gold: Figure
    first: Figure


@dataclass(frozen=True)
class Couple:
    """Kendall's tau-b of two people's ranks, the mean over the items that both ranked and where it is defined."""

    first: str
    second: str
    tau: float
    items: int


@dataclass(frozen=True)
class Agreement:
    """`alpha`: Krippendorff's, of all people over all pairs of responses, a tie half way (Krippendorff 2011)."""

    alpha: Figure
    couples: tuple[Couple, ...]
    people: tuple[Person, ...]
    gold: Figure
    first: Figure


def agreement(items: Mapping[int, Item], answers: Iterable[Answer], *, seeds: Seeds) -> Agreement:
    """Of everything that was answered. Gold questions count to no agreement: people agree on them because they are easy."""
    given = [answer for answer in answers if answer.item in items]
    ranked = [answer for answer in given if answer.judgement.ranks]
    ordinary = [answer for answer in ranked if not items[answer.item].gold]
    by_name: dict[str, list[Answer]] = defaultdict(list)
    for answer in given:
        by_name[answer.annotator].append(answer)
    return Agreement(
        alpha=alpha(ordinary, seeds=seeds),
        couples=couples(ordinary),
        people=tuple(_person(name, found, items, seeds) for name, found in sorted(by_name.items())),
        gold=_gold(ranked, items, seeds),
        first=_first(ranked, seeds),
    )


def alpha(answers: Sequence[Answer], *, seeds: Seeds) -> Figure:
    """Krippendorff's alpha over pairs of responses, each turned by a coin: which response of a pair counts as its first is nobody's
    judgement and must not look like agreement or its absence."""
    coin = seeds.python("alpha: which is first")
    counts: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(dict)
    for answer in answers:
        ranks = answer.judgement.ranks
        for pair in itertools.combinations(range(len(ranks)), 2):
            row = counts[answer.item].setdefault(pair, [0, 0, 0])
            row[VALUES.index(preferred(ranks, *pair))] += 1
    units = []
    for item in sorted(counts):
        rows = [row for _, row in sorted(counts[item].items()) if sum(row) > 1]
        if rows:  # several people
            units.append([row[::-1] if coin.random() < 0.5 else row for row in rows])
    return bootstrapped(units, lambda drawn: _alpha([row for rows in drawn for row in rows]), seeds.child("alpha"))


def _alpha(counts: Sequence[Sequence[int]]) -> float | None:
    used = np.asarray(counts).sum(0) > 0
    if used.sum() < 2:  # everybody said the same of everything: chance would have done so too
        return None
    found = krippendorff.alpha(
        value_counts=np.asarray(counts)[:, used], value_domain=np.asarray(VALUES)[used], level_of_measurement="interval"
    )
    return float(found) if math.isfinite(found) else None


def couples(answers: Sequence[Answer]) -> tuple[Couple, ...]:
    from scipy.stats import kendalltau  # a second to import, and nobody else on the page asks

    by_item: dict[int, dict[str, Answer]] = defaultdict(dict)
    for answer in answers:
        by_item[answer.item][answer.annotator] = answer
    taus: dict[tuple[str, str], list[float]] = defaultdict(list)
    for people in by_item.values():
        for first, second in itertools.combinations(sorted(people), 2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # all ties: tau-b is not defined, and says so with NaN
                tau = kendalltau(people[first].judgement.ranks, people[second].judgement.ranks).statistic
            if math.isfinite(tau):
                taus[first, second].append(float(tau))
    return tuple(Couple(*names, statistics.fmean(found), len(found)) for names, found in sorted(taus.items()))


def _person(name: str, answers: Sequence[Answer], items: Mapping[int, Item], seeds: Seeds) -> Person:
    ranked = [answer for answer in answers if answer.judgement.ranks]
    times = [answer.judgement.seconds for answer in answers if answer.judgement.seconds > 0]
    own = seeds.child(name)
    return Person(
        name=name,
        answers=len(answers),
        cannot_judge=len(answers) - len(ranked),
        seconds=statistics.median(times) if times else None,
        gold=_gold(ranked, items, own),
        first=_first(ranked, own),
    )


def _gold(answers: Sequence[Answer], items: Mapping[int, Item], seeds: Seeds) -> Figure:
    """Of the pairs that have a right order, the share ordered so; a tie is half right."""
    scores: dict[int, list[float]] = defaultdict(list)
    for answer in answers:
        right, said = items[answer.item].gold, answer.judgement.ranks
        for i, k in itertools.combinations(range(len(right)), 2):
            if right[i] != right[k]:
                better, worse = (i, k) if right[i] < right[k] else (k, i)
                scores[answer.item].append(preferred(said, better, worse))
    return bootstrapped([scores[item] for item in sorted(scores)], _mean, seeds.child("gold"))


def _first(answers: Sequence[Answer], seeds: Seeds) -> Figure:
    scores: dict[int, list[float]] = defaultdict(list)
    for answer in answers:
        first, *later = answer.shown
        scores[answer.item] += [preferred(answer.judgement.ranks, first, other) for other in later]
    return bootstrapped([scores[item] for item in sorted(scores)], _mean, seeds.child("first"))


def preferred(ranks: Sequence[int | None], first: int, second: int) -> float:
    """1 where the first is ranked better, 0 where the second is, .5 for a tie."""
    one, other = ranks[first], ranks[second]
    assert one is not None and other is not None, "an answer ranks every response"
    return 0.5 if one == other else float(one < other)


def _mean(drawn: Sequence[Sequence[float]]) -> float | None:
    values = [value for scores in drawn for value in scores]
    return statistics.fmean(values) if values else None


def bootstrapped(units: Sequence[T], figure: Callable[[Sequence[T]], float | None], seeds: Seeds) -> Figure:
    """`figure` of the items, and of items drawn from them again and again."""
    value = figure(units) if units else None
    if value is None or len(units) < 2:
        return Figure(value, None, None, len(units))
    rng = seeds.python("bootstrap")
    drawn = [figure(rng.choices(units, k=len(units))) for _ in range(DRAWS)]
    known = sorted(found for found in drawn if found is not None)
    if len(known) < DRAWS / 2:
        return Figure(value, None, None, len(units))
    low, high = (float(bound) for bound in np.quantile(known, (0.025, 0.975)))
    return Figure(value, low, high, len(units))
