"""Which item a person is given next, and in which order they see its responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from alignbench.seeds import Seeds

HELD_SECONDS = 30 * 60.0
"""An item that lies before somebody counts as theirs so long; then another person may be given it too."""


class Standing(NamedTuple):
    """An item that a person has not answered: how many others have, and before how many others it lies."""

    item: int
    gold: bool
    answered: int
    held: int


def next_item(
    open_items: Sequence[Standing], *, people: int, gold_every: int, done: int, checked: int, seeds: Seeds
) -> int | None:
    """The next of this person's items; None where nothing is left for them. `done` items they have answered, `checked` gold
    questions among them; `seeds` are the person's own.

    Items that somebody has answered come first, so that agreement can be told early. In each block of `gold_every` items one,
    at a place that cannot be guessed, is a gold question; who would have seen none is given one at the end."""
    ordinary = [one for one in open_items if not one.gold and one.answered + one.held < people]
    gold = [one.item for one in open_items if one.gold]
    block, place = divmod(done, gold_every)
    due = place == seeds.python(f"place of gold {block}").randrange(gold_every)
    if gold and (due or (not ordinary and not checked)):
        return seeds.python(f"gold {checked}").choice(gold)
    if not ordinary:
        return None
    return min(ordinary, key=lambda one: (-one.answered - one.held, one.item)).item


def shown_order(responses: int, item: int, seeds: Seeds) -> tuple[int, ...]:
    """Which response stands where: drawn anew for each person and item, and the same whenever they come back."""
    order = list(range(responses))
    seeds.python(f"order {item}").shuffle(order)
    return tuple(order)
