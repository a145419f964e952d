"""The sections that plugins add to the report: rows as they may see them, and what they make of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from alignbench.contracts.report import ReportRow, Section
from alignbench.errors import UserError
from alignbench.plugins import BLOCK_VARIABLE, Function, Place, registry
from alignbench.results.compared.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shown:
    """A section under the name that it was registered by, its figures as SVG."""

    name: str
    section: Section
    images: tuple[bytes, ...]


def made(table: Table) -> list[Shown]:
    """What every registered section has to say of the table, by name. Raises UserError that says whose section failed."""
    rows = tuple(map(reported, table.rows))
    return list(_made(rows)) if rows else []


def _made(rows: Sequence[ReportRow]) -> Iterator[Shown]:
    for function in registry().functions_of(Place.SECTION):
        try:
            section = function.load()(rows)
            if section is not None:
                _check(section)
                yield Shown(function.name, section, tuple(map(_svg, section.figures)))
        except UserError:
            raise
        except Exception as error:  # a plugin may fail in any way; a report that lacks a part without a word misleads
            raise UserError(_failed(function, error)) from error


def _failed(function: Function, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    return (
        f"The report's section {function.name!r} of {function.distribution} failed: {type(error).__name__}: {reason}. Repair it, or do "
        f"without its plugin: {BLOCK_VARIABLE}."
    )


def _check(section: Section) -> None:
    if not isinstance(section, Section):
        raise TypeError(f"it gives a {type(section).__name__}, not a Section")
    if odd := [row for row in section.rows if len(row) != len(section.columns)]:
        raise ValueError(f"a row has {len(odd[0])} texts for {len(section.columns)} columns")


def reported(row: Row) -> ReportRow:
    from alignbench.results.shown.plots.text import shown  # it imports what draws

    known = [run.record.cost.seconds for run in row.runs]
    stages = dict.fromkeys(stage for seconds in known for stage in seconds)
    return ReportRow(
        tuple(map(shown, row.label)),
        row.identity.algo,
        row.identity.model,
        row.identity.data,
        row.baseline,
        row.seeds,
        {name: cell.value for name, cell in row.cells.items()},
        {stage: statistics.fmean(seconds[stage] for seconds in known if stage in seconds) for stage in stages},
        tuple(run.path for run in row.runs),
    )


def _svg(figure: Figure) -> bytes:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)  # labels are people's: a dollar sign in one is a dollar sign
    content = BytesIO()
    figure.savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None})
    return content.getvalue()
