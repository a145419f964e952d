"""A component that somebody chose, with its settings: how it is built, and what tells it from others."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from omegaconf import OmegaConf
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException, UnsupportedValueType, ValidationError

from alignbench.bounds import check_bounds, in_words, printable, shown, wanted
from alignbench.deprecation import present
from alignbench.errors import UnknownNameError, UserError, unknown_name, without_class_names
from alignbench.plugins import Component, Kind, registry


@dataclass(frozen=True)
class Selected:
    """A chosen component: `label` is what the user chose (a preset's name or the component's own)."""

    component: Component
    label: str
    config: Any

    def load(self) -> Any:
        """Its class."""
        return self.component.load()

    def build(self, **wiring: Any) -> Any:
        """It, from its config and what its kind is wired to."""
        return self.load()(self.config, **wiring)

    def check_ready(self) -> None:
        """Raises UserError for what a run of it lacks here and now: its config's `ready`, a method, or "module:function" that is given
        the config, where that takes more than the config's own file."""
        check = getattr(self.config, "ready", None)
        if isinstance(check, str):
            module, _, name = check.partition(":")
            getattr(importlib.import_module(module), name)(self.config)
        elif check:
            check()
        for used in self.uses():
            used.check_ready()

    def uses(self) -> tuple[Selected, ...]:
        """Other components that its config names in its options, as an algorithm its optimizer: its config's `uses`."""
        return tuple(getattr(self.config, "uses", tuple)())

    def fingerprint(self) -> str:
        """A digest of its identity."""
        return digest(self.identity())

    def identity(self) -> dict[str, Any]:
        """Which component it is, its settings, and the source of the package that it comes from; and those of what it uses."""
        return {
            "name": self.component.name,
            "config": dataclasses.asdict(self.config),
            "target": self.component.target,
            "code": package_digest(self.component.package),
            "uses": [used.identity() for used in self.uses()],
        }


def select(kind: str, name: str, options: Mapping[str, Any], *, where: str) -> Selected:
    """A component by its name, with these options and its defaults: how one component is made of others. `kind` is the config
    group (`reward`), `where` the key under which the user finds the options, for errors.

    Raises UserError for an unknown name, kind or option, and for a value that its config refuses."""
    known = {k.value: k for k in Kind}
    if kind not in known:
        raise unknown_name("kind of component", kind, known)
    try:
        component = registry().get(known[kind], name)
    except UnknownNameError as error:
        option = where.removesuffix("_options")
        raise unknown_name(kind, name, error.choices, where=option if option != where else "") from None
    return Selected(component, name, instance(where, component.config, options))


def with_defaults(component: Component, options: Mapping[str, Any], *, where: str = "") -> Component:
    """The component with other defaults, as if its author had written them. `where` as in `select`.

    Raises UserError for an unknown option, and for a value that its config refuses."""
    where, known = where or component.name, {f.name: f for f in fields(component.config)}
    options = present(component.config, options, where)
    if odd := [str(key) for key in options if key not in known]:
        raise unknown_name("key", odd[0], known, where=where)
    try:  # the other defaults are left as they are: they may be interpolations, which only a run resolves
        merged: Any = OmegaConf.merge(OmegaConf.structured(component.config), dict(options))
        values = {
            name: OmegaConf.to_object(value) if OmegaConf.is_config(value := merged[name]) else value
            for name in options
        }
        check_bounds(component.config, values, where)
        component.config(**values)
    except (OmegaConfBaseException, UserError) as error:
        raise refusal(error, where) from error
    given = [(name, known[name].type, _default(value)) for name, value in values.items()]
    schema = dataclasses.make_dataclass(component.config.__name__, given, bases=(component.config,))
    schema.__module__, schema.__doc__ = component.config.__module__, component.config.__doc__
    return dataclasses.replace(component, config=schema)


def _default(value: Any) -> Any:
    return dataclasses.field(default_factory=lambda: copy.deepcopy(value))


def instance(where: str, schema: type, values: Mapping[str, Any]) -> Any:
    """A config from the values that stand under the key `where`, with its defaults."""
    known, values = [f.name for f in fields(schema)], present(schema, values, where)
    if odd := [str(key) for key in values if key not in known]:
        raise unknown_name("key", odd[0], known, where=where)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), dict(values))
        plain: Any = OmegaConf.to_container(merged)
        check_bounds(schema, plain, where)
        return OmegaConf.to_object(merged)
    except (OmegaConfBaseException, UserError) as error:  # a config may refuse its values when it is built
        raise refusal(error, where) from error


def refusal(error: Exception, where: str = "", given: str = "") -> UserError:
    """What a config refuses, as one line: which option, its value and what it takes. `where`: the key that its values stand under;
    `given`: the option and its value as the user wrote them, where that is known."""
    if isinstance(error, OmegaConfBaseException):
        words = _taken(error)
        option = ".".join(part for part in (where, str(error.full_key or "")) if part)
        if words and option:
            return UserError(f"{shown(given) or f'{option}={_written(error.value)}'} must be {words}.")
        said = without_classes(str(error).partition("\n")[0])
        text = f"{option}: {said}" if option else said
    else:
        text = one_line(str(error))
    return UserError(text if not where or text.startswith(where) else f"{where}: {text}")


def _taken(error: OmegaConfBaseException) -> str:
    """What stands in the schema where a value of another kind was given; empty where something else is wrong."""
    schema, key = error.object_type, error.key
    if not isinstance(error, (ValidationError, ConfigTypeError, UnsupportedValueType)):
        return ""
    if key is None or (
        error.value is None and "merge" in str(error)
    ):  # a list in the place of a mapping, or the other way round
        return in_words(schema)
    if dataclasses.is_dataclass(schema):
        return wanted(schema, str(key)) if any(f.name == key for f in fields(schema)) else ""
    inside = get_args(error.ref_type)
    return in_words(inside[-1]) if inside else ""


def _written(value: Any) -> str:
    """As a user writes it."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    words = {None: "null", True: "true", False: "false"}
    return words[plain] if isinstance(plain, (bool, type(None))) else shown(plain)


def without_classes(text: str) -> str:
    """A library's words without the names of its classes, and without what a terminal would obey."""
    return printable(without_class_names(text), " ").replace("DictConfig", "a mapping").replace("ListConfig", "a list")


def one_line(text: str) -> str:
    """OmegaConf's many-line messages in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("reference_type", "object_type", "Set the environment"))]
    return "; ".join(kept)


def digest(*parts: Any) -> str:
    """24 hexadecimal digits of plain values."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:24]


@functools.cache
def package_digest(package: str) -> str:
    """A digest of a package's Python files: a version number does not change when somebody edits a plugin."""
    spec = importlib.util.find_spec(package)
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    if spec and spec.origin and not roots:
        return source_digest([(Path(spec.origin).name, Path(spec.origin))])
    return source_digest(
        (path.relative_to(root).as_posix(), path) for root in roots for path in sorted(root.rglob("*.py"))
    )


def source_digest(files: Iterable[tuple[str, Path]]) -> str:
    """24 hexadecimal digits of files, by name and content."""
    found = hashlib.sha256()
    for name, path in files:
        found.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:24]
