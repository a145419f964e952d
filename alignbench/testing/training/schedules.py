"""Checks of schedules of the learning rate: what they give from the end of the warm-up (0) to the last update (1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from alignbench.plugins import Component
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.training.acting import options_act

GRID = [number / 200 for number in range(201)]

check = CheckList()


def factors(component: Component, config: Any, progress: Sequence[float] = GRID) -> list[float]:
    function = component.load()
    return [function(config, progress=share) for share in progress]


@check(
    causes="a division by what is left at the end, a factor above 1, or an integer where a number is due.",
    within="0 to 1",
)
def stays_between_zero_and_the_whole_rate(component: Component, seed: int) -> str:
    """A number from 0 to 1 at the beginning, at the end and in between."""
    found = factors(component, component.config())
    for share, factor in zip(GRID, found, strict=True):
        if not (isinstance(factor, float) and 0 <= factor <= 1):
            raise PropertyBroken(f"At progress={share:g} it gives {factor!r}.")
    if not max(found):
        raise PropertyBroken("It is 0 throughout, so that nothing would be learnt.")
    return f"{min(found):.2g} to {max(found):.2g}"


@check(causes="a counter of its own: a resumed run asks for the same progress again, or begins in the middle.")
def depends_on_progress_alone(component: Component, seed: int) -> None:
    """Asked backwards, it gives the same again."""
    config = component.config()
    forwards, backwards = factors(component, config), factors(component, config, GRID[::-1])
    for share, one, other in zip(GRID, forwards, reversed(backwards), strict=True):
        if one != other:
            raise PropertyBroken(f"At progress={share:g} it gives {one:g}, and {other:g} when asked again.")


@check(causes="an option that is not read, or a literal in its place.")
def every_option_changes_the_schedule(component: Component, seed: int) -> None:
    """Another value of each of its options gives another rate somewhere."""
    if not dataclasses.fields(component.config):
        raise NotApplicable("it has no options")
    options_act(component, lambda config: factors(component, config))
