"""What was renamed: the old name works for one minor version, with a warning that says the new one, and is gone with the next.

Three kinds of names, each with a table of its own: names of the public door in `MOVED` below; the options of a component in
`former_options` of its config; and its own earlier names in `former_names` there. So a plugin's author renames as the core does.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignbench.errors import UserError

OPTIONS, NAMES = "former_options", "former_names"


class RenamedWarning(FutureWarning):
    """Something was used by a name that it no longer has. Python shows it, unlike a DeprecationWarning, wherever it comes from."""


@dataclass(frozen=True)
class Renamed:
    """Of an old name: the `new` one, and `until`, the version of the distribution that no longer knows the old one."""

    new: str
    until: str


MOVED: dict[str, Renamed] = {}
"""Of the public door: {"alignbench.functional.old": Renamed("alignbench.functional.new", "0.3")}."""


def warn(old: str, new: str, package: str, until: str, level: int = 2) -> None:
    """Once for each place that uses it. `level`: how many calls lie between here and that place."""
    text = f"{old} is now {new}: {package} {until} no longer knows the old name."
    warnings.warn(text, RenamedWarning, stacklevel=level + 1)


def moved(module: str, name: str) -> Any:
    """What a name of the door stands for that its module does not have: the module's own `__getattr__`."""
    if not (found := MOVED.get(f"{module}.{name}")):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, _, new = found.new.rpartition(".")
    warn(f"{module}.{name}", found.new, "alignbench", found.until)
    return getattr(importlib.import_module(home), new)


def former_options(schema: type) -> Mapping[str, Renamed]:
    """The earlier names of a config's options, those of the configs that it derives from among them."""
    found: dict[str, Renamed] = {}
    for base in reversed(schema.__mro__):
        found |= vars(base).get(OPTIONS, {})
    return found


def former_names(schema: type) -> Mapping[str, str]:
    """A component's own earlier names, each with the version that no longer knows it. A config that derives from this one has none of them."""
    found: Mapping[str, str] = vars(schema).get(NAMES, {})
    return found


def placeholder(new: str) -> str:
    """What stands under an option's old name in a configuration as long as nobody gives it."""
    return f"(renamed: {new})"


def present(schema: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings with each option under its present name. `where`: the key that they stand under, for the warning.

    Raises UserError where both names were given."""
    found = dict(values)
    for old, renamed in former_options(schema).items():
        value = found.pop(old, placeholder(renamed.new))
        if value == placeholder(renamed.new):
            continue
        before, after = (f"{where}.{name}".lstrip(".") for name in (old, renamed.new))
        if renamed.new in found and found[renamed.new] != _default(schema, renamed.new):
            raise UserError(f"{before} and {after} are the same option: give {after} alone.")
        warn(before, after, schema.__module__.partition(".")[0], renamed.until)
        found[renamed.new] = value
    return found


def _default(schema: Any, name: str) -> Any:
    (field,) = (field for field in dataclasses.fields(schema) if field.name == name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
