"""How far several annotators of the same responses agree: what bounds everything that is learnt from them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alignbench.records import Message, Ranking

Pair = tuple[tuple[Message, ...], str, str]
"""A conversation and two responses to it, in the order of their letters."""


@dataclass(frozen=True)
class Agreement:
    """Of `annotators` who ranked some `pairs` of responses in common. `alike`: the share of verdicts of two of them on one pair that are
    the same (the first, the second, or a tie). `alpha`: Krippendorff's, of nominal verdicts: 1 is perfect, 0 is chance; NaN where all
    verdicts are one and the same."""

    annotators: int
    pairs: int
    alike: float
    alpha: float

    def figures(self) -> Mapping[str, float]:
        found = {"annotators": self.annotators, "shared_pairs": self.pairs, "alike": self.alike, "alpha": self.alpha}
        return {f"agreement/{name}": float(value) for name, value in found.items() if not math.isnan(value)}

    def line(self) -> str:
        alpha = "" if math.isnan(self.alpha) else f", Krippendorff's alpha {self.alpha:.2f}"
        return f"  {self.annotators} annotators share {self.pairs} pairs: {self.alike:.0%} of verdicts are alike{alpha}"


def agreement(rankings: Iterable[Ranking]) -> Agreement | None:
    """Of those who are named; None where no two of them ranked the same pair."""
    verdicts: dict[Pair, dict[str, int]] = {}
    for ranking in rankings:
        answers = list(zip(ranking.responses, ranking.ranks, strict=True))
        for (one, rank), (other, below) in itertools.combinations(answers, 2):
            if ranking.annotator and one != other:
                first, second = sorted((one, other))
                sign = (rank > below) - (rank < below)
                said = verdicts.setdefault((ranking.prompt.messages, first, second), {})
                said.setdefault(ranking.annotator, sign if first == one else -sign)
    shared = [list(said.values()) for said in verdicts.values() if len(said) > 1]
    if not shared:
        return None
    people = {name for said in verdicts.values() if len(said) > 1 for name in said}
    both = [one == other for values in shared for one, other in itertools.combinations(values, 2)]
    return Agreement(len(people), len(shared), sum(both) / len(both), alpha(shared))


def alpha(units: Sequence[Sequence[int]]) -> float:
    """Krippendorff's alpha, nominal: 1 less the observed disagreement over that of values paired by chance (Krippendorff 2011, "Computing
    Krippendorff's alpha-reliability"). Each unit has the values of two annotators or more."""
    total = Counter(value for values in units for value in values)
    count = sum(total.values())
    observed = sum(sum(n * (len(values) - n) for n in Counter(values).values()) / (len(values) - 1) for values in units)
    expected = sum(n * (count - n) for n in total.values()) / (count - 1)
    return 1 - observed / expected if expected else math.nan
