"""The range of a number, told where its default stands: `kl_coef: float = bounded(0.1, least=0)`.

It is checked when a configuration is loaded, and shown by `--help` and in docs/options.md.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignbench.errors import UserError

LARGEST = 1e9
"""How far from 0 a number may be where its range says no more."""
_RANGE = "range"
_WANTED: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list, as [a, b]",
    dict: "values by name, as {a: 1}",
}


@dataclass(frozen=True)
class Range:
    """From `least` or from above `above`, to `most` or to below `below`; None: no such bound. NaN is never in a range, infinity where
    `most` is infinite."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    nonzero: bool = False

    def __contains__(self, value: float) -> bool:
        least = -LARGEST if self.least is None and self.above is None else self.least
        most = LARGEST if self.most is None and self.below is None else self.most
        return (
            value == value  # not NaN; math.isnan takes no whole number beyond 1e308
            and (least is None or value >= least)
            and (self.above is None or value > self.above)
            and (most is None or value <= most)
            and (self.below is None or value < self.below)
            and not (self.nonzero and value == 0)
        )

    def __str__(self) -> str:
        start = f"above {number(self.above)}" if self.above is not None else ""
        if self.least is not None:
            start = number(self.least)
        end = f"below {number(self.below)}" if self.below is not None else ""
        if self.most is not None:
            end = number(self.most)
        if start and end:
            between = " to " if self.least is not None else " and " if self.below is not None else ", up to "
            text = f"{start}{between}{end}"
        elif end:
            text = f"up to {end}" if self.most is not None else end
        else:
            text = f"{start} or more" if self.least is not None else start
        return ", ".join(part for part in (text, "other than 0" if self.nonzero else "") if part)


def bounded(
    default: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    nonzero: bool = False,
) -> Any:
    """A field of a config dataclass that holds a number, with its default and its range; of a dict or a list, the range of each of
    its numbers. Where no bound stands a number is at most `LARGEST` from 0."""
    metadata = {_RANGE: Range(least, above, most, below, nonzero)}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def ranges(schema: type) -> Mapping[str, Range]:
    """Of a config dataclass. A class that only changes the default of a field that it inherits leaves its range as it is."""
    found = {}
    for field in dataclasses.fields(schema):
        told = (getattr(base, "__dataclass_fields__", {}).get(field.name) for base in schema.__mro__)
        if limits := next((one.metadata[_RANGE] for one in told if one and _RANGE in one.metadata), None):
            found[field.name] = limits
    return found


def check_bounds(schema: type, values: Mapping[str, Any], where: str = "", *, flags: bool = False) -> None:
    """Raises UserError for the first of the values that lies outside the range of its field, those of its sections included.
    `where`: the key that they stand under; `flags`: they are options of a command, as --best-of."""
    for section in dataclasses.fields(schema):
        inside: Any = section.default_factory
        held = values.get(section.name)
        if isinstance(inside, type) and dataclasses.is_dataclass(inside) and isinstance(held, Mapping):
            check_bounds(inside, held, f"{where}.{section.name}".lstrip("."), flags=flags)
    for field, limits in ranges(schema).items():
        for name, value in _numbers(field, values.get(field)):
            if value not in limits:
                option = f"--{name.replace('_', '-')}" if flags else f"{where}.{name}".lstrip(".")
                raise UserError(f"{option}={shown(value)} must be {_asked(value, limits)}.")


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        yield from ((f"{name}.{key}", one) for key, one in value.items() if isinstance(one, (int, float)))
    elif isinstance(value, (list, tuple)):
        yield from ((name, one) for one in value if isinstance(one, (int, float)))
    elif isinstance(value, (int, float)):
        yield name, value


def _asked(value: float, limits: Range) -> str:
    if not str(limits):
        return f"a number from -{number(LARGEST)} to {number(LARGEST)}"
    if value > LARGEST and limits.most is None and limits.below is None:
        return f"{limits}, up to {number(LARGEST)}"
    if value < -LARGEST and limits.least is None and limits.above is None:
        return f"{limits}, from -{number(LARGEST)}"
    return str(limits)


def number(value: float | None) -> str:
    """As a person writes it: 1e9, 0.5, 2."""
    rounded = f"{value:g}"
    text = rounded if float(rounded) == value else f"{value:.12g}"
    return text.replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def printable(text: str, instead: str | None = None) -> str:
    """Without what a terminal would obey: `instead` stands for each such character, or its escape."""

    def harmless(c: str) -> str:
        return c.encode("unicode_escape").decode() if instead is None else instead

    return "".join(c if c.isprintable() else harmless(c) for c in text)


def shown(value: object) -> str:
    """In an error: the beginning of what is long."""
    text = printable(str(value))
    return text if len(text) <= 80 else f"{text[:60]}..."


def wanted(schema: type, name: str) -> str:
    """What an option takes, in words: "a number, 0 or more". Empty where its type does not say."""
    return in_words(typing.get_type_hints(schema).get(name), ranges(schema).get(name))


def in_words(hint: Any, limits: Range | None = None) -> str:
    """A type, and the range of its numbers."""
    inside = [one for one in typing.get_args(hint) if one is not types.NoneType]
    optional = types.NoneType in typing.get_args(hint)
    kind = inside[0] if optional and len(inside) == 1 else hint
    origin = typing.get_origin(kind) or kind
    if dataclasses.is_dataclass(origin):
        text = f"settings by name: {', '.join(field.name for field in dataclasses.fields(origin))}"
    else:
        text = next((words for known, words in _WANTED.items() if origin is known), "")
    said = f"{text}, {limits}" if text and limits and str(limits) else text
    return f"{said}, or null" if said and optional else said
