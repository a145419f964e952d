"""Draws the results table: for a terminal, as Markdown, CSV or JSON.

Metrics are rows and algorithms columns: sixteen metrics fit no terminal side by side, and people compare a few
algorithms on each. Names, settings and errors are untrusted: they are never read as rich markup, escape sequences,
Markdown or spreadsheet formulas.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from alignbench.records import Direction
from alignbench.results.runs import find_runs
from alignbench.results.table import Cell, Row, Table, build_table

ARROWS = {Direction.HIGHER: "↑", Direction.LOWER: "↓", Direction.NEITHER: ""}
NOT_APPLICABLE = "–"


def print_table(paths: Iterable[Path], console: Console | None = None) -> None:
    """The table of the runs in `paths`, in the terminal."""
    console = console or Console()
    console.print(terminal(build_table(*find_runs(paths)), console.width))


def terminal(table: Table, width: int) -> RenderableType:
    """Blocks of as many algorithms as the width holds; the SFT models are repeated in each."""
    cells = _cells(table)
    left = max((len(_name(name, table)) for name in table.metrics), default=0)
    widths = [
        max(len(text) for text in [*map(plain, row.label), *(texts[i] for texts in cells.values())])
        + 2  # padding and divider
        for i, row in enumerate(table.rows)
    ]
    baselines = [i for i, row in enumerate(table.rows) if row.baseline]
    blocks = [baselines]
    for i in range(len(baselines), len(table.rows)):
        full = left + sum(widths[j] for j in [*blocks[-1], i]) > width
        if full and len(blocks[-1]) > len(baselines):  # one more than the SFT models, however narrow the terminal
            blocks.append(baselines)
        blocks[-1] = [*blocks[-1], i]
    parts: list[RenderableType] = []
    for block in blocks:
        parts += [_block(table, cells, block), ""] if block else []
    parts += [Text(plain(line), style="dim") for line in caption(table)]
    parts += [Text(plain(line), style="yellow") for line in remarks(table)]
    return Group(*parts)


def _block(table: Table, cells: Mapping[str, Sequence[str]], columns: Sequence[int]) -> RichTable:
    rows = [table.rows[i] for i in columns]
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    drawn.add_column("", no_wrap=True)
    for row in rows:
        header = Text("\n").join(Text(plain(part), style="" if i else "bold") for i, part in enumerate(row.label))
        drawn.add_column(header, justify="right", no_wrap=True)
    family = None
    for name in table.metrics:
        if name.partition("/")[0] != family:
            family = name.partition("/")[0]
            drawn.add_row(Text(plain(family), style="bold cyan"))
        drawn.add_row(Text(_name(name, table)), *(Text(cells[name][i]) for i in columns))
    drawn.add_section()
    drawn.add_row("seeds", *(str(len(row.seeds)) for row in rows))
    drawn.add_row("seconds", *(f"{row.seconds:.0f}" for row in rows))
    return drawn


def markdown(table: Table) -> str:
    lines = []
    if table.rows:
        lines.append(_line(["metric", *(" ".join(row.label) for row in table.rows)]))
        lines.append("| --- |" + " ---: |" * len(table.rows))
        for name, texts in _cells(table).items():
            lines.append(_line([f"{name} {ARROWS[table.metrics[name]]}", *texts]))
        lines.append(_line(["seeds", *(str(len(row.seeds)) for row in table.rows)]))
        lines.append(_line(["seconds", *(f"{row.seconds:.0f}" for row in table.rows)]))
        lines.append("")
    lines.append(" ".join(_markdown(line) for line in caption(table)))
    if lines_below := remarks(table):
        lines += ["", *(f"- {_markdown(line)}" for line in lines_below)]
    return "\n".join(lines) + "\n"


def caption(table: Table) -> list[str]:
    """What the signs in the table mean: those that it uses."""
    over_seeds = {cell.over_seeds for row in table.rows for cell in row.cells.values()}
    if not over_seeds:
        return ["No finished run."]
    seeds, examples = "over seeds (Student's t)", "over evaluation examples only (clustered), training noise left out"
    interval = {(True,): seeds, (False,): examples, (False, True): f"{seeds}; one seed, marked *: {examples}"}
    return [
        f"↑ higher is better, ↓ lower is better, {NOT_APPLICABLE} does not apply.",
        f"± half a 95% interval {interval[tuple(sorted(over_seeds))]}.",
    ]


def as_csv(table: Table) -> str:
    """One line per row and metric, numbers unrounded."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["row", "algo", "model", "data", "annotator", "reward", "config_hash", "seeds", "seconds",
         "metric", "direction", "value", "half_interval_95", "interval_over"]
    )  # fmt: skip
    for row in table.rows:
        i = row.identity
        names = [" ".join(row.label), i.algo, i.model, i.data, i.annotator or "", i.reward or "", i.config_hash]
        for name, cell in row.cells.items():
            over = "seeds" if cell.over_seeds else "examples"
            half = "" if math.isnan(cell.half_interval) else repr(cell.half_interval)
            numbers = [len(row.seeds), repr(row.seconds), _formula_free(name), table.metrics[name].value]
            writer.writerow([*map(_formula_free, names), *numbers, repr(cell.value), half, over])
    return buffer.getvalue()


def as_json(table: Table) -> str:
    rows = [
        {
            "label": list(row.label),
            "algo": row.identity.algo,
            "plugin": row.identity.plugin,
            "plugin_version": row.identity.plugin_version,
            "model": row.identity.model,
            "data": row.identity.data,
            "annotator": row.identity.annotator,
            "reward": row.identity.reward,
            "config_hash": row.identity.config_hash,
            "baseline": row.baseline,
            "seeds": list(row.seeds),
            "seconds": _number(row.seconds),
            "metrics": {
                name: {
                    "value": cell.value,
                    "half_interval_95": _number(cell.half_interval),
                    "interval_over": "seeds" if cell.over_seeds else "examples",
                    "direction": table.metrics[name].value,
                }
                for name, cell in row.cells.items()
            },
        }
        for row in table.rows
    ]
    content = {"rows": rows, "incomplete": list(table.incomplete), "notes": list(table.notes)}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def remarks(table: Table) -> list[str]:
    return [*(f"Not in the table: {line}" for line in table.incomplete), *table.notes]


def _cells(table: Table) -> dict[str, list[str]]:
    """What stands in the table: metric -> one text per row."""
    cells = [cell for row in table.rows for cell in row.cells.values()]
    mixed = len({cell.over_seeds for cell in cells}) > 1

    def text(cell: Cell | None, decimals: int) -> str:
        if cell is None:
            return NOT_APPLICABLE
        value = f"{round(cell.value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.00"
        interval = "" if math.isnan(cell.half_interval) else f" ±{cell.half_interval:.{decimals}f}"
        mark = "" if not mixed else " " if cell.over_seeds or not interval else "*"
        return value + interval + mark

    return {
        name: [text(row.cells.get(name), decimals) for row in table.rows]
        for name in table.metrics
        for decimals in [_decimals(table.rows, name)]
    }


def _name(metric: str, table: Table) -> str:
    return f"  {plain(metric.partition('/')[2])} {ARROWS[table.metrics[metric]]}"


def _decimals(rows: Sequence[Row], metric: str) -> int:
    """Two or three, so that the smallest interval of the metric still shows a digit."""
    halves = [row.cells[metric].half_interval for row in rows if metric in row.cells]
    smallest = min((half for half in halves if half > 0), default=0.1)
    return 2 if smallest >= 0.01 else 3


def _number(value: float) -> float | None:
    """JSON has no NaN: null."""
    return None if math.isnan(value) else value


def plain(text: str) -> str:
    """Without control characters: a name must not move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _markdown(text: str) -> str:
    """As literal text inside a Markdown table cell: no markup, HTML, link or new cell."""
    return re.sub(r"([\\|`*\[\]])", r"\\\1", html.escape(plain(text), quote=False))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_markdown(cell.strip()) for cell in cells) + " |"


def _formula_free(text: str) -> str:
    """A spreadsheet would compute a cell that starts with = + - @."""
    return f"'{plain(text)}" if text[:1] in ("=", "+", "-", "@") else plain(text)
