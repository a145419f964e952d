"""docs/data.md names all that there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from alignbench_data.columns import COUPLES, NAMES, ROLES
from alignbench_data.config import PreferencesConfig
from alignbench_data.formats import FORMS
from alignbench_data.reasons import Reason

from alignbench.app.compose import conf_dir

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return table[2:]


def test_forms_in_the_order_in_which_they_are_tried() -> None:
    assert [row[0] for row in rows("Forms of rows")] == [form.name for form in FORMS]


def test_roles() -> None:
    named = {role: row[1] for row in rows("Columns") for role in re.findall(r"`(\w+)`", row[0])}
    assert set(named) == set(NAMES)
    for role, known in ROLES.items():
        if not role.endswith("_score"):
            assert all(re.search(rf"\b{name}\b", named[role]) for name in known), role
    assert COUPLES[0][0] in named["response_a"]


def test_presets() -> None:
    named = {name for row in rows("Presets") for name in re.findall(r"`([\w.-]+)`", row[1]) if "=" not in name}
    assert named == {path.stem for path in (Path(conf_dir()) / "data").glob("*.yaml")}


def test_reasons() -> None:
    assert all(f"`{reason.value}`" in PAGE for reason in Reason)


def test_settings() -> None:
    named = set(re.findall(r"\bdata\.(\w+)", PAGE))
    fields = {field.name for field in dataclasses.fields(PreferencesConfig)}
    assert fields - named == set() and named - fields - {"md"} == set()
