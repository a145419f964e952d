"""What people rank: items, what they say of one, and the checks that both pass before they are kept."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignbench.errors import UserError
from alignbench.records import Message

SCALES = ("helpful", "truthful", "harmless")
"""Of single responses, 1 to 7, as InstructGPT's labelers had them (Ouyang et al., arXiv 2203.02155, appendix B)."""
MOST_ON_A_SCALE = 7
MOST_RESPONSES = 9
"""One number key each."""
MOST_NOTE = 10_000
LONGEST_DAY = 86_400.0
"""Seconds: what a browser says of an item's time is believed up to it."""


@dataclass(frozen=True)
class Item:
    """K responses to one conversation. `gold`: the ranks that are right, where it is a question that people are checked by;
    `cluster` as a Prompt's."""

    prompt: str
    messages: tuple[Message, ...]
    responses: tuple[str, ...]
    finished: tuple[bool, ...] = ()
    gold: tuple[int, ...] = ()
    cluster: str = ""

    def __post_init__(self) -> None:
        count = len(self.responses)
        if not 2 <= count <= MOST_RESPONSES:
            raise UserError(f"{self.prompt}: {count} responses; people rank 2 to {MOST_RESPONSES}.")
        if any(len(part) not in (0, count) for part in (self.finished, self.gold)):
            raise UserError(f"{self.prompt}: {count} responses, but another number of ranks or ends.")


@dataclass(frozen=True)
class Judgement:
    """What a person says of an item. `ranks[k]` is that of `responses[k]` (not of the k-th shown), 0 is best, None: not ranked
    yet. No ranks at all: it cannot be judged. `scales[name][k]` is 1 to 7, 0 where nothing was said."""

    ranks: tuple[int | None, ...] = ()
    scales: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    note: str = ""
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return None not in self.ranks


def judgement(given: Mapping[str, Any], responses: int) -> Judgement:
    """From a browser, which is not believed. Raises UserError."""
    ranks = given.get("ranks", [])
    if not isinstance(ranks, list) or len(ranks) not in (0, responses):
        raise UserError(f"A ranking needs {responses} ranks, or none where it cannot be judged.")
    if not all(rank is None or (type(rank) is int and 0 <= rank < responses) for rank in ranks):
        raise UserError(f"A rank is a whole number from 0 to {responses - 1}.")
    scales = given.get("scales", {})
    if not isinstance(scales, dict) or not set(scales) <= set(SCALES):
        raise UserError(f"The scales are {', '.join(SCALES)}.")
    for values in scales.values():
        fits = isinstance(values, list) and len(values) == responses
        if not fits or not all(type(value) is int and 0 <= value <= MOST_ON_A_SCALE for value in values):
            raise UserError(f"A scale has a whole number from 1 to {MOST_ON_A_SCALE} for each response, or 0.")
    note, seconds = given.get("note", ""), given.get("seconds", 0.0)
    if not isinstance(note, str) or len(note) > MOST_NOTE:
        raise UserError(f"A note is text of at most {MOST_NOTE:,} characters.")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds) or seconds < 0:
        raise UserError("The time that an item took is a number of seconds.")
    return Judgement(
        tuple(ranks),
        {name: tuple(values) for name, values in scales.items()},
        note,
        min(float(seconds), LONGEST_DAY),
    )


def dense(ranks: Sequence[int | None]) -> tuple[int, ...]:
    """Ranks without gaps: 0, 2, 2 becomes 0, 1, 1."""
    known = [rank for rank in ranks if rank is not None]
    order = sorted(set(known))
    return tuple(order.index(rank) for rank in known)


_NAME = re.compile(r"[\w][\w .\-@'’]{0,63}\Z")


def annotator_name(given: str) -> str:
    """A person's name as it is kept. Raises UserError."""
    name = " ".join(unicodedata.normalize("NFC", given).split())
    if not _NAME.match(name):
        raise UserError(
            "A name has 1 to 64 letters, digits, spaces, dots, dashes, ' or @, and begins with a letter or digit."
        )
    return name
