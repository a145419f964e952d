"""What a section of the report is given and gives. See `contracts`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ReportRow:
    """A row of the compared table: one configuration of one algorithm, its runs one per seed.

    `label` is what sets it apart from the others, `baseline` that it is an SFT model. `metrics` are means over the runs, by name;
    `seconds` wall time by stage, mean over the runs that know it; `runs` their directories, in the order of `seeds`."""

    label: tuple[str, ...]
    algo: str
    model: str
    data: str
    baseline: bool
    seeds: tuple[int, ...]
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class Section:
    """A section of the report: a heading, paragraphs, a table (`rows` of as many texts as `columns` has), and matplotlib figures.

    All of it is text, not HTML: it is escaped. What is empty is left out."""

    title: str
    paragraphs: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    figures: tuple[Figure, ...] = field(default=(), repr=False)


MakeSection = Callable[[Sequence[ReportRow]], Section | None]
"""`section(rows)`: None where it has nothing to say of them."""
