"""The public door changes only where somebody meant it to: `python tests/door.py` writes the snapshot anew."""

from __future__ import annotations

import ast
import importlib

import pytest

from tests import door


def test_the_door_is_as_the_snapshot_says() -> None:
    assert door.door() == door.SNAPSHOT.read_text(encoding="utf-8"), (
        "the public door has changed: plugins that we do not know may break. If that is meant, run `python tests/door.py`, "
        "and say in CHANGELOG.md what a plugin's author has to do"
    )


@pytest.mark.parametrize("module", door.DOOR)
def test_every_name_of_the_door_can_be_imported(module: str) -> None:
    names = door._names(door._parsed(module))
    assert names
    found = importlib.import_module(module)
    assert [name for name in sorted(names) if not hasattr(found, name)] == []


def test_a_changed_signature_field_or_name_shows() -> None:
    (before,) = door._described("f", *ast.parse("def f(a: int, *, b: str = 'x') -> None: ...").body)
    (after,) = door._described("f", *ast.parse("def f(a: int, *, b: str = 'y') -> None: ...").body)
    assert before == "def f(a: int, *, b: str='x') -> None" != after
    fields = list(
        door._described("C", *ast.parse("@dataclass(frozen=True)\nclass C(B):\n    n: int = 3\n    _p: int\n").body)
    )
    assert fields == ["@dataclass(frozen=True) class C(B)", "    n: int = 3"]
