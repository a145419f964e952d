"""Draws the results table: for a terminal, as Markdown or as LaTeX.

Metrics are rows and algorithms columns: sixteen metrics fit no terminal side by side, and people compare a few
algorithms on each. Names, settings and errors are untrusted: they are never read as rich markup, escape sequences,
Markdown or LaTeX.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from alignbench.records import Direction
from alignbench.results.compared.comparable import clashes, comparable
from alignbench.results.compared.table import Row, Table, build_table
from alignbench.results.compared.training_points import has_points
from alignbench.results.disk.runs import find_runs
from alignbench.results.shown.cells import (
    ARROWS,
    BETTER,
    HOLLOW,
    NOT_ANY,
    NOT_APPLICABLE,
    OTHER,
    WORSE,
    Texts,
    amounts_of,
    cells_of,
    costs,
    found_from,
    mark,
    marked,
)
from alignbench.results.shown.grid import Grid, in_table, latex_text, markdown_text
from alignbench.untrusted import plain

if TYPE_CHECKING:
    from alignbench.results.compared.paired import Difference

NARROWEST = 12
"""Columns of signs that a label is broken to: in fewer nobody can read it."""
FOUND_FROM = "Smallest true difference that so many seeds and prompts would find with 80% power"
OUT_OF_REACH = f"; {NOT_ANY}: not even the largest that the metric can have"

MORE = (
    "More: `alignbench compare` with --ratings METRIC (who wins how often), --at-kl NATS (all at one KL), "
    "--output report.html (frontier, curves, responses)."
)


def print_table(paths: Iterable[Path], console: Console | None = None) -> None:
    """The table of the runs in `paths`, in the terminal."""
    console = console or Console()
    console.print(terminal(with_warnings(build_table(*find_runs(paths))), console.width))


def print_tables(paths: Iterable[Path], console: Console) -> None:
    """As print_table, but a table for each group of runs whose numbers can be compared, below what sets them apart."""
    runs, broken = find_runs(paths)
    whole = build_table(runs, broken)
    groups = comparable(whole) if clashes(whole, budgets=True) else []
    if len(groups) < 2:
        console.print(terminal(with_warnings(whole), console.width))
        return
    console.print(Text(f"{len(groups)} tables, for numbers of different settings cannot be compared:"), soft_wrap=True)
    for line in clashes(whole, budgets=True):
        console.print(Text(plain(f"  {line}")), soft_wrap=True)
    for i, rows in enumerate(groups):
        table = build_table([run for row in rows for run in row.runs], broken if i == 0 else ())
        if i == 0:
            table = replace(table, incomplete=whole.incomplete)
        console.print()
        console.print(terminal(with_warnings(table), console.width))


def with_warnings(table: Table) -> Table:
    """With a warning at each run that went past its peak."""
    if not any(has_points(run) for row in table.rows for run in row.runs):
        return table
    from alignbench.results.compared.overoptimisation import warned  # it takes time to import, and few runs have points

    return warned(table)


def terminal(
    table: Table, width: int, differences: Sequence[Difference] = (), *, power: bool = False
) -> RenderableType:
    """Blocks of as many algorithms as the width holds, with the SFT models in each; below them the differences, and with `power` what
    they could have been found from."""
    baselines = [i for i, row in enumerate(table.rows) if row.baseline]
    parts: list[RenderableType] = [Text(plain(line)) for line in table.verdict]
    parts += [Text()] if parts else []
    parts += _blocks(table, marked(table, differences), costs(table), baselines, width)
    for part in parted(differences):
        compared, amounts = amounts_of(table, part)
        parts += [Text(plain(title(part)), style="bold"), *_blocks(compared, amounts, {}, [], width)]
    if tested := [d for d in differences if power and d.primary]:
        compared, sizes = found_from(table, tested)
        parts += [Text(_found_from(sizes), style="bold"), *_blocks(compared, sizes, {}, [], width)]
    parts += [Text(plain(line), style="dim") for line in caption(table, differences)]
    parts += [Text(plain(line), style="yellow") for line in remarks(table)]
    parts += [Text(MORE, style="dim")] if differences or table.verdict else []
    return Group(*parts)


def _found_from(sizes: Texts) -> str:
    return FOUND_FROM + OUT_OF_REACH * any(NOT_ANY in texts for texts in sizes.values())


def _blocks(table: Table, cells: Texts, footer: Texts, fixed: list[int], width: int) -> list[RenderableType]:
    left = max(map(len, [*footer, *(_name(name, table) for name in cells)]), default=0)
    rows = range(len(table.rows))
    every = [*cells.values(), *footer.values()]
    of_cells = [max((len(texts[i]) for texts in every), default=0) for i in rows]
    heads = [[plain(part) for part in head(row, table)] for row in table.rows]

    def widths_of(heads: Sequence[Sequence[str]]) -> list[int]:
        return [max(of_cells[i], *map(len, heads[i])) + 2 for i in rows]  # padding and divider

    widths = widths_of(heads)

    def too_wide() -> bool:
        return (
            left + sum(widths[j] for j in fixed) + max((widths[i] for i in rows if i not in fixed), default=0) > width
        )

    if too_wide():
        room = max((width - left) // (len(fixed) + 1) - 2, NARROWEST)
        folded = max(min(room, max(of_cells, default=0)), NARROWEST)
        heads = [[piece for part in heads[i] for piece in _folded(part, folded)] for i in rows]
        widths = widths_of(heads)
        fixed = [] if too_wide() else fixed  # SFT models that leave no room beside them stand in blocks of their own
    blocks = [fixed]
    taken = left + sum(widths[j] for j in fixed)
    for i in rows:
        if i in fixed:
            continue
        full = taken + widths[i] > width
        if full and len(blocks[-1]) > len(fixed):  # one column, however narrow the terminal
            blocks.append(fixed)
            taken = left + sum(widths[j] for j in fixed)
        blocks[-1] = [*blocks[-1], i]
        taken += widths[i]
    return [part for block in blocks if block for part in (_block(table, heads, cells, footer, block), "")]


def _folded(part: str, width: int) -> list[str]:
    """A part of a label in lines, broken behind a sign where there is one: cut off, two labels would look alike."""
    lines = []
    while len(part) > width:
        end = max((part.rfind(sign, 0, width) + 1 for sign in "=._-/ "), default=0) or width
        lines.append(part[:end])
        part = part[end:]
    return [*lines, part]


def _block(
    table: Table, heads: Sequence[Sequence[str]], cells: Texts, footer: Texts, columns: Sequence[int]
) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    drawn.add_column("", no_wrap=True)
    for label in (heads[i] for i in columns):
        header = Text("\n").join(Text(part, style="" if i else "bold") for i, part in enumerate(label))
        drawn.add_column(header, justify="right", no_wrap=True)
    family = None
    for name, texts in cells.items():
        if name.partition("/")[0] != family:
            family = name.partition("/")[0]
            drawn.add_row(Text(plain(family), style="bold cyan"))
        drawn.add_row(Text(_name(name, table)), *(Text(texts[i]) for i in columns))
    drawn.add_section()
    for name, texts in footer.items():
        drawn.add_row(name, *(texts[i] for i in columns))
    return drawn


def markdown(table: Table, differences: Sequence[Difference] = (), *, power: bool = False) -> str:
    lines = [*(f"- {markdown_text(line)}" for line in table.verdict), *([""] if table.verdict else [])]
    lines += [*_grid(table, marked(table, differences), costs(table)).markdown(), ""] if table.rows else []
    for part in parted(differences):
        compared, amounts = amounts_of(table, part)
        lines += [markdown_text(title(part)), "", *_grid(compared, amounts, {}).markdown(), ""]
    if tested := [d for d in differences if power and d.primary]:
        compared, sizes = found_from(table, tested)
        lines += [_found_from(sizes), "", *_grid(compared, sizes, {}).markdown(), ""]
    lines += [" ".join(markdown_text(line) for line in said)] if (said := caption(table, differences)) else []
    if lines_below := remarks(table):
        lines += [*([""] if lines else []), *(f"- {markdown_text(line)}" for line in lines_below)]
    return "\n".join(lines) + "\n"


def latex(table: Table, differences: Sequence[Difference] = ()) -> str:
    """A table for amssymb, finer with booktabs: what it says as its caption, and below it what its signs mean, those that it has."""
    # It has the marks, and no table of differences.
    said = [*caption(table), *_marks(table, differences), *remarks(table)]
    below = [latex_text(line) + r"\par" for line in said]
    drawn = _grid(table, marked(table, differences), costs(table)).latex() if table.rows else []
    verdict = " ".join(table.verdict) or "Alignment algorithms compared."
    return "\n".join(in_table(drawn, verdict, "alignbench", below, packages="amssymb")) + "\n"


def _grid(table: Table, cells: Texts, footer: Texts) -> Grid:
    metrics = [[f"{name} {ARROWS[table.metrics[name]]}", *texts] for name, texts in cells.items()]
    header = ["metric", *(" ".join(head(row, table)) for row in table.rows)]
    below = [[name, *texts] for name, texts in footer.items()]
    return Grid(header, [metrics, below] if below else [metrics])


def head(row: Row, table: Table) -> tuple[str, ...]:
    """Of a row's column: its label, and that one seed alone is behind it, where others have more."""
    more = any(len(other.seeds) > 1 for other in table.rows)
    return (*row.label, "(1 seed)") if more and len(row.seeds) == 1 else row.label


def caption(table: Table, differences: Sequence[Difference] = ()) -> list[str]:
    """What the signs in the table mean: those that it uses."""
    over_seeds = any(cell.over_seeds for row in table.rows for cell in row.cells.values())
    if not any(row.cells for row in table.rows):
        return [] if table.metrics else ["No finished run."]  # there may be some, and none at the KL that is asked for
    seeds, examples = "over seeds (Student's t)", "over evaluation examples only (clustered), training noise left out"
    cells = [text for texts in cells_of(table).values() for text in texts]
    marked_alone = any("*" in text for text in cells)
    interval = f"{seeds}; one seed, marked *: {examples}" if marked_alone else seeds if over_seeds else examples
    known = any(" ±" in text or " −" in text for text in cells)
    directions = table.metrics.values()
    signs = [
        *(["↑ higher is better"] if Direction.HIGHER in directions else []),
        *(["↓ lower is better"] if Direction.LOWER in directions else []),
        *([f"{NOT_APPLICABLE} does not apply"] if NOT_APPLICABLE in cells else []),
    ]
    uneven = "; − and + its ends where they are not equally far" if any(" −" in text for text in cells) else ""
    return [
        *([f"{', '.join(signs)}."] if signs else []),
        *([f"± half a 95% interval {interval}{uneven}."] if known else []),
        *(_legend(table, differences) if differences else []),
    ]


def _marks(table: Table, differences: Sequence[Difference]) -> list[str]:
    """What the marks mean: those that there are."""
    over, tested = {d.over_seeds for d in differences}, max((d.tests for d in differences), default=0)
    found = {mark(d, table) for d in differences}
    meant = {kind: name for kind, name in ((BETTER, "better"), (WORSE, "worse"), (OTHER, "other")) if found & {*kind}}
    signs = [sign for kind in meant for sign in kind if sign in found]
    told = f"{' '.join(signs)} {', '.join(meant.values())} than the baseline: p < 5%" if meant else "No mark: p ≥ 5%"
    family = "the one difference" if tested == 1 else f"the {tested} differences"
    rest = "without a mark it may be noise" if meant else "each may be noise"
    lines = [f"{told} after Holm's correction for {family} of primary metrics; {rest}."] * bool(tested)
    if len(over) == 2:
        alone = [*(sign for sign in signs if sign in HOLLOW), "*"]
        lines.append(f"{', '.join(alone)}: one seed, over examples only, training noise left out.")
    return lines


def _legend(table: Table, differences: Sequence[Difference]) -> list[str]:
    over = {d.over_seeds for d in differences}
    lines = [
        *_marks(table, differences),
        *(
            ["Exploratory: not tested, intervals not corrected; one in twenty leaves out 0 by chance."]
            * (not all(d.primary for d in differences))
        ),
        "Differences are paired by example, and by seed where rows share seeds; [ ] is a 95% interval "
        + ("over seeds and examples" if True in over else "over examples only, training noise left out: one seed")
        + ", d the difference in standard deviations of the examples' scores (Cohen's d_av)"
        * any(not math.isnan(d.effect_size) for d in differences)
        + ".",
    ]
    if any(math.isnan(d.low) for d in differences):
        lines.append(
            f"[{NOT_APPLICABLE}, {NOT_APPLICABLE}]: no score varies, so that nothing tells how sure the difference is."
        )
    return lines


def remarks(table: Table) -> list[str]:
    return [*(f"Not in the table: {line}" for line in table.incomplete), *table.notes]


def title(differences: Sequence[Difference]) -> str:
    names = list(dict.fromkeys(" ".join(d.baseline) for d in differences))
    against = names[0] if len(names) == 1 else f"its own of {', '.join(names)}"
    return f"Difference from {against}" + ("" if differences[0].primary else ", exploratory")


def parted(differences: Sequence[Difference]) -> list[Sequence[Difference]]:
    """Of primary metrics, then of all others."""
    parts = ([d for d in differences if d.primary], [d for d in differences if not d.primary])
    return [part for part in parts if part]


def _name(metric: str, table: Table) -> str:
    return f"  {plain(metric.partition('/')[2])} {ARROWS[table.metrics[metric]]}"
