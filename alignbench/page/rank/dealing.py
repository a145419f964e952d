"""Which item a person is given next, and in which order they see its responses."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench.seeds import Seeds

HELD_SECONDS = 30 * 60.0
"""An item that lies before somebody counts as theirs so long; then another person may be given it too."""


def next_item(
    ordinary: int | None, gold: Sequence[int], *, gold_every: int, done: int, checked: int, seeds: Seeds
) -> int | None:
    """The next of a person's items; None where nothing is left for them. `ordinary`: the one that is due, `gold`: questions that
    they have not seen; `done` items they have answered, `checked` gold questions among them; `seeds` are the person's own.

    In each block of `gold_every` items one, at a place that cannot be guessed, is a gold question; who would have seen none is
    given one at the end."""
    block, place = divmod(done, gold_every)
    due = place == seeds.python(f"place of gold {block}").randrange(gold_every)
    if gold and (due or (ordinary is None and not checked)):
        return seeds.python(f"gold {checked}").choice(gold)
    return ordinary


def shown_order(responses: int, item: int, seeds: Seeds) -> tuple[int, ...]:
    """Which response stands where: drawn anew for each person and item, and the same whenever they come back."""
    order = list(range(responses))
    seeds.python(f"order {item}").shuffle(order)
    return tuple(order)
