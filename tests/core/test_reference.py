"""docs/reference says what the docstrings of the public door say, and each name of the door has one."""

from __future__ import annotations

import pytest

from tests import reference


@pytest.mark.parametrize("page", reference.PAGES)
def test_the_page_is_what_the_docstrings_say(page: str) -> None:
    assert (reference.FOLDER / f"{page}.md").read_text(encoding="utf-8") == reference.written(page), (
        "docstrings of the public door have changed: run `python tests/reference.py`"
    )


@pytest.mark.parametrize("module", reference.PAGES.values())
def test_something_is_said_of_every_name_and_of_every_method(module: str) -> None:
    found = list(reference.entries(module))
    assert found
    silent = [one.name for entry in found for one in (entry, *entry.members) if not one.says.strip()]
    assert silent == []


def test_fields_and_inherited_methods_are_told() -> None:
    door = {entry.name: entry for entry in reference.entries("alignbench")}
    told = {member.name: member.says for member in door["OptimizerConfig"].members}
    assert told["OptimizerConfig.learning_rate"] == "Of the optimizer, at its highest."
    policy = {member.name: member.says for member in door["Policy"].members}
    table = {entry.name: entry for entry in reference.entries("alignbench.testing")}["TabularPolicy"]
    assert {m.name: m.says for m in table.members}["TabularPolicy.generate"] == policy["Policy.generate"]
    assert door["POLICY"].says == "The role of `Policy` that is trained."


def test_what_markdown_would_read_is_plain_text() -> None:
    assert reference._text("[B]: a < b * c, `x * y`") == r"\[B]: a \< b \* c, `x * y`"
