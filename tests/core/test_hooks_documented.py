"""Every hook is explained in its docstring and in docs/plugins.md, and a test calls it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from alignbench import Subject, functional, hookspecs
from alignbench.plugins import Kind

ROOT = Path(__file__).parents[2]
HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.GROUP}_spec")]


def test_there_are_hooks() -> None:
    assert {kind.hook for kind in Kind} < set(HOOKS), "each component kind has a hook that registers it"


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_has_a_docstring_of_one_line(hook: str) -> None:
    documentation = inspect.getdoc(getattr(hookspecs, hook)) or ""
    assert documentation.endswith(".")
    assert len(documentation.splitlines()) == 1


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_has_a_heading_in_the_docs(hook: str) -> None:
    headings = [
        line.lstrip("# ") for line in (ROOT / "docs/plugins.md").read_text().splitlines() if line.startswith("#")
    ]
    assert [heading for heading in headings if heading.startswith(f"`{hook}")] != []


def test_docs_name_no_hook_that_does_not_exist() -> None:
    lines = (ROOT / "docs/plugins.md").read_text().splitlines()
    named = [line.split("`")[1].split("(")[0] for line in lines if line.startswith("###") and "`" in line]
    assert sorted(named) == sorted(HOOKS)


def test_code_in_the_docs_is_that_of_the_example() -> None:
    """Each block names its file in its first line, and the rest stands in that file word for word."""
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    for name, code in blocks:
        assert code in (ROOT / "tests/third_party/alignbench_example" / name).read_text(), (
            f"the docs quote {name} wrongly"
        )


def test_what_a_plugin_calls_is_there_and_told() -> None:
    """The section names functions of `functional` with their arguments, and all that a Subject has."""
    page = (ROOT / "docs/plugins.md").read_text()
    section = page[page.index("## What a plugin calls") : page.index("## The hooks that register")]
    mathematics, subject = section.split("**An evaluation's [`Subject`](reference/door.md#subject)**")
    told = re.findall(r"`(\w+)(?:\(([^`]*)\))?`", "".join(re.findall(r"^\| (`.*?) \|", mathematics, re.MULTILINE)))
    assert len(told) > 15
    for name, arguments in told:
        known = inspect.signature(getattr(functional, name)).parameters
        for argument in re.findall(r"(\w+)=?", arguments if "{" not in arguments else ""):
            assert argument in known or f"*{argument}" in arguments, f"functional.{name} has no {argument}"
    names = set(re.findall(r"\w+", "".join(re.findall(r"^\| (`.*?) \|", subject, re.MULTILINE))))
    assert {field.name for field in dataclasses.fields(Subject)} <= names


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_is_called_by_a_test(hook: str) -> None:
    tests = ast.parse((Path(__file__).parent / "test_plugins.py").read_text())
    functions = {node.name: ast.unparse(node) for node in tests.body if isinstance(node, ast.FunctionDef)}
    assert f"'{hook}'" in functions.get(f"test_hook_{hook}", ""), (
        f"write test_hook_{hook} in tests/core/test_plugins.py"
    )
