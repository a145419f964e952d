"""The options of a run as `--help` shows them: their values, and behind each number the range that it may have."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from alignbench.app import price
from alignbench.app.config import COMPONENT, JUDGE, SLOTS, Settings
from alignbench.app.overrides import settle
from alignbench.bounds import Range, ranges
from alignbench.plugins import Kind, Place, registry

_LINE = re.compile(r"( *)(\w+):(?: |$)")


def sections(schema: type, where: str = "") -> Iterator[tuple[str, type]]:
    """A config dataclass and those inside of it, each with the key that it stands under."""
    yield where, schema
    for field in dataclasses.fields(schema):
        inside: Any = field.default_factory
        if isinstance(inside, type) and dataclasses.is_dataclass(inside):
            yield from sections(inside, f"{where}.{field.name}".lstrip("."))


def told(schema: type) -> dict[str, str]:
    """What is said of each option: the docstring below it, in the class that says it last."""
    found: dict[str, str] = {}
    for of in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(of):
            continue
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(of))).body
        except OSError:  # it was made where no file is
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


def known_ranges(cfg: DictConfig) -> dict[str, Range]:
    """Of every number of a composed configuration, by its whole key."""
    found: dict[str, type] = dict(sections(Settings))
    for slot, kind in {**SLOTS, JUDGE: Kind.REWARD}.items():
        name = cfg[slot].get(COMPONENT) if isinstance(cfg.get(slot), DictConfig) else None
        if (kind, name) in registry().components:
            found[slot] = registry().get(kind, str(name)).config
    found |= {f"eval.options.{component.name}": component.config for component in registry().of(Kind.EVALUATION)}
    return {
        f"{where}.{name}".lstrip("."): limits
        for where, schema in found.items()
        for name, limits in ranges(schema).items()
    }


def shown_options(_root_: DictConfig) -> str:
    """`${options:}` in the help of conf/config.yaml: the configuration, each number with its range."""
    cfg = _root_.copy()
    with open_dict(cfg):
        del cfg["hydra"]
    price.settled(cfg)
    settle(cfg)
    known, parents, lines = known_ranges(cfg), list[str](), []
    for line in OmegaConf.to_yaml(cfg).splitlines():
        if key := _LINE.match(line):
            parents[len(key.group(1)) // 2 :] = [key.group(2)]
            if limits := str(known.get(".".join(parents), "")):
                line = f"{line}  # {limits}"
        lines.append(line)
    return "\n".join(lines).replace("$", "$$")  # Hydra fills a template with it


def added_commands() -> str:
    """`${commands:}` in the help of conf/config.yaml: those of plugins, each on a line of its own."""
    found = registry().functions_of(Place.COMMAND)
    lines = [f"alignbench {f.name:<22}{f.summary}" for f in found if f.distribution != "alignbench"]
    return "\n".join(lines).replace("$", "$$")


OmegaConf.register_new_resolver("options", shown_options, replace=True)
OmegaConf.register_new_resolver("commands", added_commands, replace=True)
