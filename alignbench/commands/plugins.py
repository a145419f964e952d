"""`alignbench plugins`: every component that is installed."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignbench import __version__
from alignbench.app.options import docstrings
from alignbench.bounds import Range, ranges
from alignbench.plugins import Component, Function, Kind, Place, registry

DESCRIPTION = "Lists every component, command and section of the report: kind, name, distribution, version, summary."


def main(arguments: Sequence[str]) -> int:
    """Prints the table, or all of it as JSON; returns the exit code."""
    parser = argparse.ArgumentParser("alignbench plugins", description=DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="with every option of every component (docs/plugins.md)")
    if parser.parse_args(arguments).json:
        print(json.dumps(listed(), indent=1, allow_nan=False, ensure_ascii=False))
        return 0
    table = Table("kind", "name", "distribution", "version", "what it is", box=None, pad_edge=False)
    for kind in Kind:
        for component in registry().of(kind):
            row = (kind.value, component.name, component.distribution, component.version, component.summary)
            table.add_row(*(escape(cell) for cell in row))
    for place in Place:
        for function in registry().functions_of(place):
            row = (place.value, function.name, function.distribution, function.version, function.summary)
            table.add_row(*(escape(cell) for cell in row))
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(table)
    return 0


def listed() -> Mapping[str, Any]:
    """Everything that is registered, in plain values; docs/plugins.md says what each key holds."""
    return {
        "alignbench": __version__,
        "components": [_component(each) for kind in Kind for each in registry().of(kind)],
        "functions": [_function(each) for place in Place for each in registry().functions_of(place)],
    }


def _component(component: Component) -> Mapping[str, Any]:
    return {
        "kind": component.kind.value,
        "name": component.name,
        "summary": component.summary,
        "distribution": component.distribution,
        "version": component.version,
        "package": component.package,
        "target": component.target,
        "config": f"{component.config.__module__}:{component.config.__qualname__}",
        "options": list(_options(component.config)),
    }


def _function(function: Function) -> Mapping[str, str]:
    return {
        "kind": function.place.value,
        "name": function.name,
        "summary": function.summary,
        "distribution": function.distribution,
        "version": function.version,
        "target": function.target,
    }


def _options(config: Any) -> Iterator[Mapping[str, Any]]:
    says, hints, limits = docstrings(config), typing.get_type_hints(config), ranges(config)
    for field in dataclasses.fields(config):
        limit, given = limits.get(field.name), field.default
        if field.default_factory is not dataclasses.MISSING:
            given = field.default_factory()
        yield {
            "name": field.name,
            "type": _type(hints[field.name]),
            "default": None if given is dataclasses.MISSING else _plain(given),
            "required": given is dataclasses.MISSING,
            "range": None if limit is None else _range(limit),
            "summary": says.get(field.name, ""),
        }


def _range(limits: Range) -> Mapping[str, Any]:
    """The bounds that there are."""
    return {name: _plain(bound) for name, bound in vars(limits).items() if bound is not None and bound is not False}


def _type(hint: Any) -> str:
    """As Python writes it, an enum by its choices."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " | ".join(json.dumps(member.name) for member in hint)
    name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return name.replace("typing.", "")


def _plain(value: Any) -> Any:
    """As JSON holds it; a number that it does not know is text."""
    if isinstance(value, enum.Enum):
        return value.name  # as a command line gives it
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
