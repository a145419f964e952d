"""A row as it was read, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from alignbench import pretrained
from alignbench_data.reasons import Unusable


@dataclass(frozen=True, slots=True)
class Row:
    """`values`: what was read; or, where it cannot be read, why. `number` counts `unit`s (line, row) from 1."""

    file: str
    unit: str
    number: int
    values: Any
    problem: Unusable | None = None

    @property
    def place(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


@dataclass(frozen=True)
class Part:
    """Rows that lie together: a file, or a split. `split`: which one, as its name says; empty: it does not say."""

    name: str
    split: str
    rows: Callable[[], Iterator[Row]]


def plain(said: str) -> str:
    """One line that every terminal can show, whatever of a file it quotes."""
    written = said.encode("utf-8", "backslashreplace").decode()
    return " ".join("".join(letter if letter.isprintable() else " " for letter in written).split())


def one_line(error: BaseException) -> str:
    """What an error of a library says, cut to what a person reads."""
    said = plain(pretrained.one_line(error))
    return said if len(said) <= 300 else said[:300] + " ..."
