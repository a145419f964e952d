"""The options of a run, as `--help` shows them: the value of each, what it takes, and what it is."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignbench.app import price
from alignbench.app.config import COMPONENT, JUDGE, SLOTS, Settings
from alignbench.app.overrides import settle
from alignbench.bounds import in_words, number, ranges
from alignbench.plugins import Kind, registry


@dataclass(frozen=True)
class Option:
    """`key`: as it is written on the command line; `takes`: its type and its range in words; `said`: its docstring."""

    key: str
    value: str
    takes: str
    said: str


def sections(schema: type, where: str = "") -> Iterator[tuple[str, type]]:
    """A config dataclass and those inside of it, each with the key that it stands under."""
    yield where, schema
    for field in dataclasses.fields(schema):
        inside: Any = field.default_factory
        if isinstance(inside, type) and dataclasses.is_dataclass(inside):
            yield from sections(inside, f"{where}.{field.name}".lstrip("."))


def options(cfg: DictConfig) -> Iterator[Option]:
    """Every option of a composed configuration, those of the components that it chose included."""
    price.settled(cfg)
    settle(cfg)
    found: list[tuple[str, type]] = list(sections(Settings))
    for slot, kind in {**SLOTS, JUDGE: Kind.REWARD}.items():
        name = cfg[slot].get(COMPONENT) if isinstance(cfg.get(slot), DictConfig) else None
        if (kind, name) in registry().components:
            found += sections(registry().get(kind, str(name)).config, slot)
    for component in registry().of(Kind.EVALUATION):
        found += sections(component.config, f"eval.options.{component.name}")
    for component in registry().of(Kind.STAGE):
        found += sections(component.config, f"stage_options.{component.name}")
    for where, schema in found:
        said, hints, known = docstrings(schema), typing.get_type_hints(schema), ranges(schema)
        for field in dataclasses.fields(schema):
            if (not where and field.name in {*SLOTS, JUDGE}) or dataclasses.is_dataclass(field.default_factory):
                continue  # they have a section of their own
            key = f"{where}.{field.name}".lstrip(".")
            takes = in_words(hints[field.name], known.get(field.name))
            yield Option(key, _value(OmegaConf.select(cfg, key)), takes, said.get(field.name, ""))


def _value(value: Any) -> str:
    """As it is written on the command line."""
    if isinstance(value, float):
        return number(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else getattr(value, "name", value)
    return str(plain).replace("'", "")


def docstrings(schema: type) -> dict[str, str]:
    """What is said of each option: the docstring below it, in the class that says it last."""
    found: dict[str, str] = {}
    for of in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(of):
            continue
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(of))).body
        except (OSError, SyntaxError):  # a class that was made while a program runs
            continue
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                text = " ".join(str(below.value.value).split())
                name = ast.unparse(field.target)
                if not (text.startswith("As in ") and text.endswith("Config.") and name in found):
                    found[name] = text
    return found
