"""Whether each option of a component changes what it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from alignbench.plugins import Component
from alignbench.testing.algorithms.options import built, values_of
from alignbench.testing.checks import PropertyBroken


def options_act(component: Component, outcome: Callable[[Any], Sequence[float]]) -> None:
    """Raises PropertyBroken where no other value of an option changes `outcome(config)`; `inert` of the config names exceptions."""
    config = component.config()
    usual, inert = list(outcome(config)), getattr(component.config, "inert", {})
    names = [field.name for field in dataclasses.fields(component.config) if field.name not in inert]
    for name in names:
        others = [built(config, **{name: value}) for value in values_of(config, name)[1:]]
        tried = [other for other in others if other is not None]
        if tried and all(list(outcome(other)) == usual for other in tried):
            raise PropertyBroken(f"{name}: no other value changes anything.")
