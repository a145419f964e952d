"""The options of an algorithm, and the values that its config takes for each."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

import torch

from alignbench.errors import UnknownNameError, UserError
from alignbench.plugins import Component

NOT_ITS_OWN = frozenset(
    {
        *("updates", "passes", "batch_size", "micro_batch_size", "samples_per_prompt", "pairs"),
        *("optimizer", "optimizer_options", "lr_schedule_options"),
    }
)
"""Options that say what an algorithm is fed and what steps its weights: the core's, or the kit's to set."""
NO_NAME = "(none of them)"
_TRIES = 30


def own_options(component: Component) -> list[str]:
    """The names of all options that an update may depend on."""
    return [field.name for field in dataclasses.fields(component.config) if field.name not in NOT_ITS_OWN]


def built(config: Any, **changes: Any) -> Any:
    """The config with other values, or None where it refuses them."""
    try:
        return dataclasses.replace(config, **changes)
    except UserError:
        return None


def values_of(config: Any, name: str) -> list[Any]:
    """The option's value and others that differ from it: twice, half and none of a number, both booleans, every choice of a name."""
    now, kind = getattr(config, name), typing.get_type_hints(type(config)).get(name)
    kinds = (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        else (kind,)
    )
    if now is None:
        return [None, *([0.1, 10.0] if float in kinds else [1, 3] if int in kinds else [])]
    if isinstance(now, bool):
        return [now, not now]
    if isinstance(now, int):
        return [now, 2 * now, now + 1]
    if isinstance(now, float):
        return [now, 0.5 * now, 2 * now, 0.0] if now else [now, 0.1, 0.4]
    if isinstance(now, str):
        return [now, *(choice for choice in choices(config, name) if choice != now)]
    return [now]


def choices(config: Any, name: str) -> Sequence[str]:
    """The names that an option may have: those that its config lists where it refuses another."""
    try:
        dataclasses.replace(config, **{name: NO_NAME})
    except UnknownNameError as refusal:
        return refusal.choices
    except UserError:
        pass
    return ()


def drawn(config: Any, names: Sequence[str], rng: torch.Generator, least: int) -> list[Any]:
    """Configs with each of `names` at random, at least `least` of them, and as many more as show every value of every option."""
    known = {name: values_of(config, name) for name in names}

    def pick(values: list[Any]) -> Any:
        return values[int(torch.randint(len(values), (), generator=rng))]

    found: list[Any] = []
    for name, value in [(n, v) for n, values in known.items() for v in values] + [("", None)] * least:
        if name and any(getattr(other, name) == value for other in found):
            continue
        if not name and len(found) >= least:
            break
        for _ in range(_TRIES):
            chosen = {other: pick(values) for other, values in known.items()} | ({name: value} if name else {})
            if (made := built(config, **chosen)) is not None:
                found.append(made)
                break
    return found


def contexts(config: Any, names: Sequence[str]) -> list[Any]:
    """Settings in which an option may act: every option that is 0 moved away from it, the settings as they are, and both with each
    name, each boolean and each unset option another than it is."""
    moved = config
    for name in names:
        if isinstance(getattr(config, name), float) and getattr(config, name) == 0:
            moved = built(moved, **{name: 0.1}) or moved
    found = [moved, config]
    for start in (moved, config):
        for name in names:
            now = getattr(start, name)
            if now is None or isinstance(now, bool | str):
                others = (built(start, **{name: value}) for value in values_of(start, name)[1:])
                found.extend(other for other in others if other is not None)
    return list({repr(context): context for context in found}.values())
