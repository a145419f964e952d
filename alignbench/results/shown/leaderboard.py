"""Draws the ratings of `alignbench compare --ratings`."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from alignbench.errors import UserError
from alignbench.results.compared.ratings import ORDERS, Rating, Score
from alignbench.results.shown.cells import NOT_APPLICABLE
from alignbench.results.shown.export import formula_free, json_text
from alignbench.results.shown.grid import Grid, in_table, latex_text, markdown_text
from alignbench.untrusted import plain

HEADER = ("row", "Bradley-Terry", "Elo", "average win rate", "games")


def draw(rated: Sequence[Rating], notes: Sequence[str], metric: str, form: str, *, items: bool = False) -> str:
    """The ratings as text in one of the formats of `alignbench compare`, `notes` below them. `items`: of comparisons from elsewhere,
    which know no seeds."""
    below = [*legend(metric, rated, items=items), *notes]
    if form == "json":
        content = {"metric": metric, "ratings": [dataclasses.asdict(r) for r in rated], "notes": below}
        return json_text(content)
    if form == "csv":
        return _csv(rated)
    return in_form(Grid(HEADER, [[_line(rating) for rating in rated]]), below, form, "--ratings")


def in_form(grid: Grid, below: Sequence[str], form: str, option: str) -> str:
    """A grid with lines below it, in a format for people; `option` is what asked for it."""
    if form == "markdown":
        return "\n".join([*grid.markdown(), "", *map(markdown_text, below)]) + "\n"
    if form == "latex":
        notes = [f"{latex_text(line)}\\par" for line in below]
        label = option.removeprefix("--")
        return "\n".join(in_table(grid.latex(), f"Alignment algorithms, {label}.", label, notes, packages="")) + "\n"
    if form == "html":
        raise UserError(f"{option} has no HTML page: choose another --format.")
    return terminal(grid, below)


def legend(metric: str, rated: Sequence[Rating], *, items: bool = False) -> list[str]:
    alone = [" ".join(r.row) for r in rated if r.seeds < 2]
    over = "over evaluation examples only, training noise left out: one seed" if alone else "over seeds and examples"
    if 0 < len(alone) < len(rated):
        over = (
            f"over seeds and examples; of {', '.join(alone)}, and of others in games against {'it' if len(alone) == 1 else 'one of these'}, over examples only, "
            "training noise left out: one seed"
        )
    if items:
        over = "over items"
    return [
        f"Who wins on {metric}, example by example; ties are half a win. [ ] is a 95% interval (hierarchical bootstrap) {over}; "
        "a guide and no test: that is what the table of differences is for.",
        f"Bradley-Terry: strengths that sum to 1, a beats b with probability a / (a + b); {NOT_APPLICABLE} where rows that never "
        "lose to the others leave them unbounded. Elo: from 1000, K = 4, the mean over "
        f"{ORDERS} orders of the same games and [ ] over those orders alone. Average win rate: mean over opponents.",
    ]


def _line(rating: Rating) -> list[str]:
    strength, rate = (_interval(score) for score in (rating.bradley_terry, rating.average_win_rate))
    elo = f"{rating.elo.value:.0f} [{rating.elo.low:.0f}, {rating.elo.high:.0f}]"
    return [" ".join(rating.row), strength, elo, rate, str(rating.games)]


def _interval(score: Score) -> str:
    if math.isnan(score.value):
        return NOT_APPLICABLE
    return f"{score.value:.3f}" + ("" if math.isnan(score.low) else f" [{score.low:.3f}, {score.high:.3f}]")


def _csv(rated: Sequence[Rating]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ("bradley_terry", "average_win_rate", "elo")
    writer.writerow(
        ["row", *(f"{name}{end}" for name in names for end in ("", "_low_95", "_high_95")), "games", "seeds"]
    )
    for rating in rated:
        scores = [
            "" if math.isnan(v) else repr(v) for name in names for v in dataclasses.astuple(getattr(rating, name))
        ]
        writer.writerow([formula_free(" ".join(rating.row)), *scores, rating.games, rating.seeds])
    return buffer.getvalue()


def terminal(grid: Grid, below: Sequence[str]) -> str:
    """A grid and the lines below it, for a terminal."""
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(grid.header):
        drawn.add_column(name, justify="right" if i else "left")
    for line in grid.sections[0]:
        drawn.add_row(*(Text(plain(cell)) for cell in line))
    console = Console()
    with console.capture() as capture:
        console.print(drawn, *(Text(plain(line), style="dim") for line in below), sep="\n")
    return capture.get()
