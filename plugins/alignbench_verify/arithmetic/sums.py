"""Sums of two numbers below fifty: how they are asked, how hard they are, and how people get them wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LARGEST = 49


@dataclass(frozen=True, order=True)
class Sum:
    """Of two numbers from 0 to LARGEST."""

    left: int
    right: int

    def asked(self, wording: str) -> str:
        return _ASKED[wording](self)

    def answered(self, wording: str, answer: int) -> str:
        """With a right answer, or one that is not."""
        return _ANSWERED[wording](self, answer)

    @property
    def answer(self) -> int:
        return self.left + self.right

    @property
    def cluster(self) -> str:
        """a+b and b+a are one question: they are held out together, and are not independent."""
        low, high = sorted((self.left, self.right))
        return f"{low}+{high}"

    @property
    def carries(self) -> bool:
        """Whether the units of two-digit numbers add up to ten or more."""
        return self.left % 10 + self.right % 10 > 9

    @property
    def difficulty(self) -> str:
        if max(self.left, self.right) < 10:
            return "one_digit"
        return "carry" if self.carries else "two_digits"


_ASKED: Mapping[str, Callable[[Sum], str]] = {
    "signs": lambda asked: f"{asked.left}+{asked.right}=",
    "words": lambda asked: f"What is {asked.left} plus {asked.right}?",
}
# In words as chat models say it: by writing the sum down, they get it right more often.
_ANSWERED: Mapping[str, Callable[[Sum, int], str]] = {
    "signs": lambda asked, answer: str(answer),
    "words": lambda asked, answer: f"{asked.left} + {asked.right} = {answer}",
}

DIFFICULTIES = ("one_digit", "two_digits", "carry")


def every_sum() -> list[Sum]:
    return [Sum(left, right) for left in range(LARGEST + 1) for right in range(LARGEST + 1)]


def mistaken(asked: Sum, rng: random.Random) -> int:
    """A wrong answer as people give it: the carry is forgotten, or one digit is one too high or too low."""
    if asked.difficulty == "carry" and rng.random() < 0.5:
        return asked.answer - 10
    place = 1 if asked.difficulty == "one_digit" else rng.choice((1, 10))
    wrong = asked.answer + rng.choice((-place, place))
    return wrong if wrong >= 0 else asked.answer + place
