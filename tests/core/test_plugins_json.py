"""`alignbench plugins --json`: what docs/plugins.md says of it, of every component that is installed."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema

from alignbench import bounded
from alignbench.commands.plugins import _component
from alignbench.plugins import Component, Kind, Place, registry
from tests.core.harness import Command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"


def schema() -> Any:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return json.loads(text)


def test_what_is_printed_fits_the_schema_of_the_page(command: Command) -> None:
    done = command("plugins", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    jsonschema.validate(found, schema())
    assert schema()["properties"]["components"]["items"]["properties"]["kind"]["enum"] == [kind.value for kind in Kind]
    listed = {(each["kind"], each["name"]): each for each in found["components"]}
    assert set(listed) == {(kind.value, name) for kind, name in registry().components}
    assert len(found["functions"]) == sum(len(registry().functions_of(place)) for place in Place)
    for (kind, name), component in registry().components.items():
        said = listed[kind.value, name]
        assert (said["distribution"], said["target"]) == (component.distribution, component.target)
        assert [one["name"] for one in said["options"]] == [one.name for one in dataclasses.fields(component.config)]
        assert [one["name"] for one in said["options"] if not one["summary"]] == [], f"{kind.value}={name}"


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


@dataclass
class Options:
    """Options of every type."""

    must: str
    """Has no default."""
    rate: float = bounded(0.5, least=0, below=1, nonzero=True)
    """In a
    range."""
    limit: float = bounded(math.inf, above=0, most=math.inf)
    """May be infinite."""
    colour: Colour = Colour.BLUE
    """A choice."""
    names: list[str] = field(default_factory=lambda: ["a"])
    """A list."""
    seed: int | None = None
    """An optional."""


def test_each_option_is_told_with_its_type_default_range_and_docstring() -> None:
    component = Component(Kind.REWARD, "mine", Options, "mine.reward:Mine", "mine-dist", "2.0")
    said = _component(component)
    assert json.loads(json.dumps(said, allow_nan=False))["options"] == [
        option("must", "str", None, None, "Has no default.", required=True),
        option("rate", "float", 0.5, {"least": 0, "below": 1, "nonzero": True}, "In a range."),
        option("limit", "float", "inf", {"above": 0, "most": "inf"}, "May be infinite."),
        option("colour", '"RED" | "BLUE"', "BLUE", None, "A choice."),
        option("names", "list[str]", ["a"], None, "A list."),
        option("seed", "int | None", None, None, "An optional."),
    ]


def option(name: str, kind: str, default: Any, limits: Any, summary: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name, "type": kind, "default": default, "required": required, "range": limits, "summary": summary
    }  # fmt: skip
