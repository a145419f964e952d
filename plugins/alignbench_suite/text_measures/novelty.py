"""NoveltyBench's distinct and utility (Zhang et al. 2025, arXiv 2504.05228), from the paper.

The paper sorts the K responses to a prompt into classes of functional equivalence with a classifier fine-tuned for it. Here
a class is, instead, the responses of one normalised text, or those whose embedding is near enough to the first of the
class: equal texts are a lower bound of equivalence, so that long free text is flattered, and short answers are not."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from alignbench_suite.text_measures.embeddings import Vectors, cosines

PATIENCE = 0.8
"""The probability that a user who has seen a response asks for one more."""

_OF_A_NAME = "#%‰@&/\\§′″"
"""Punctuation to Unicode, and not what ends a sentence: C# is not C, nor 5% 5."""
_QUOTES_AND_MARKUP = "*_#>`'\"‘’“”«»([ \t\n"


def normalised(text: str) -> str:
    """Case, white space, marks around the text and its final punctuation do not matter: `**Blue.**` is `blue`."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    end = len(folded)
    while end and unicodedata.category(folded[end - 1])[0] in "PZ" and folded[end - 1] not in _OF_A_NAME:
        end -= 1
    return folded[:end].lstrip(_QUOTES_AND_MARKUP) or folded


def classes_by_text(texts: Sequence[str]) -> list[int]:
    """The class of each text, numbered by first appearance: those with the same normalised text."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(normalised(text), len(numbers)) for text in texts]


def classes_by_cosine(vectors: Vectors, threshold: float) -> list[int]:
    """The class of each text, numbered by first appearance: the first class whose first member is as near as that."""
    near = cosines(vectors)
    firsts: list[int] = []
    found = []
    for i in range(len(vectors)):
        number = next((c for c, first in enumerate(firsts) if near[i, first] >= threshold), len(firsts))
        if number == len(firsts):
            firsts.append(i)
        found.append(number)
    return found


def distinct_classes(classes: Sequence[int]) -> float:
    """How many classes there are, 1 to K: `distinct_k` of the paper. Its published result files count from 0, and are one
    less."""
    return float(len(set(classes)))


def novelty(classes: Sequence[int]) -> float | None:
    """(classes - 1) / (K - 1): 0 where all responses are one, 1 where no two are. None of a single response."""
    return (len(set(classes)) - 1) / (len(classes) - 1) if len(classes) > 1 else None


def utility(classes: Sequence[int], values: Sequence[float], patience: float = PATIENCE) -> float:
    """(1 - p) / (1 - p^K) * sum over i of p^(i-1) * value_i where response i begins a new class, else 0.

    What a user gets who reads the responses in turn, goes on with probability p, and has no use for what was said before:
    the value itself where all K are new, and little more than its first share where all are one."""
    discounts = [patience**i for i in range(len(classes))]
    seen: set[int] = set()
    total = 0.0
    for discount, number, value in zip(discounts, classes, values, strict=True):
        total += discount * value * (number not in seen)
        seen.add(number)
    return total / sum(discounts)
