"""What a visitor chose to see: the whole of it stands in the address, so that a link shows the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from starlette.datastructures import QueryParams

from alignbench.app.price import price_of
from alignbench.errors import UserError
from alignbench.page.explorer.library import Library, Snapshot
from alignbench.records import Direction
from alignbench.results.compared.comparable import caveats, clashes, meets
from alignbench.results.compared.examples import Examples, read_examples
from alignbench.results.compared.frontier import AT_BUDGET, AT_KL, matched
from alignbench.results.compared.paired import Difference, differences
from alignbench.results.compared.primary import primary_of
from alignbench.results.compared.table import Row, Table, baseline_row
from alignbench.results.compared.verdict import tests, verdict

MOST_ROWS = 60
MOST_RUNS = 1000
"""Of rows and of the runs behind them whose examples, training or responses are read for one answer."""


@dataclass(frozen=True)
class View:
    """`only`: KEY=VALUE, as of `alignbench compare`; `rows` and `metrics`: those to show, all where empty; `primary`: metrics to
    test in place of those that the runs name; `baseline`: a row's label, "" for each row's SFT model. `force` compares what does not
    belong in one table."""

    only: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    primary: tuple[str, ...] = ()
    baseline: str = ""
    at_kl: float | None = None
    at_budget: float | None = None
    force: bool = False

    @classmethod
    def of(cls, asked: QueryParams) -> View:
        view = cls(
            only=tuple(asked.getlist("only")),
            rows=tuple(asked.getlist("row")),
            metrics=tuple(asked.getlist("metric")),
            primary=tuple(asked.getlist("primary")),
            baseline=asked.get("baseline", ""),
            at_kl=_number(asked, "at_kl"),
            at_budget=_number(asked, "at_budget"),
            force=asked.get("force") == "1",
        )
        if view.at_kl is not None and view.at_budget is not None:
            raise UserError("Compare at one KL or at one number of seconds, not at both.")
        return view


def _number(asked: QueryParams, name: str) -> float | None:
    text = asked.get(name, "")
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise UserError(f"{name}={text[:40]} must be a number, 0 or more.")
    return value


def text_of(row: Row) -> str:
    """How addresses and menus name a row."""
    return " ".join(row.label)


@dataclass(frozen=True)
class Selection:
    """The part of the `available` table that is shown, of its metrics those in `metrics`: what is tested does not depend on what is
    looked at. `primary` are tested. `clashes`: why its rows do not belong in one; `refused`: why no row is compared
    with another, "" where they are; `too_many`: rows or runs, so that no file of theirs is read either."""

    table: Table
    available: Table
    metrics: Mapping[str, Direction]
    primary: tuple[str, ...]
    clashes: tuple[str, ...]
    examples: Examples
    refused: str = ""
    too_many: bool = False

    @property
    def shown(self) -> Table:
        return replace(self.table, metrics=self.metrics)


def select(library: Library, snapshot: Snapshot, view: View) -> Selection:
    return library.recent.get(("selection", snapshot.version, view), lambda: _select(library, snapshot, view))


def _select(library: Library, snapshot: Snapshot, view: View) -> Selection:
    rows = [row for row in snapshot.table.rows if all(meets(row.runs[0], condition) for condition in view.only)]
    metrics = {m: d for m, d in snapshot.table.metrics.items() if any(m in row.cells for row in rows)}
    available = replace(snapshot.table, rows=tuple(rows), metrics=metrics)
    table = _chosen(available, view)
    budgets = view.at_budget is not None
    found: tuple[str, ...] = ()
    if len(table.rows) <= MOST_ROWS:  # of more none are compared, and to look takes as long as to read them
        found = tuple(clashes(table, budgets))
        table = replace(table, notes=(*table.notes, *caveats(table)))
    refused = many = _too_many(table)
    if not many and found and not view.force:
        refused = "These rows do not belong in one table, so none is compared with another: choose rows, or compare all the same."
    examples = Examples({}) if refused or len(table.rows) < 2 else _examples(library, snapshot, available, table)
    table = replace(table, notes=(*table.notes, *examples.problems))
    target = view.at_kl if view.at_kl is not None else view.at_budget
    if target is not None and not refused:
        table, examples = matched(table, AT_BUDGET if budgets else AT_KL, target, examples, price=price_of)
    primary = primary_of(table, view.primary)
    if len(table.rows) > 1:
        table = replace(table, notes=(*table.notes, *primary.notes))
    shown = {m: d for m, d in table.metrics.items() if not view.metrics or m in view.metrics}
    return Selection(table, available, shown, primary.metrics, found, examples, refused, bool(many))


def _chosen(available: Table, view: View) -> Table:
    """The rows that were chosen, and what they are compared with."""
    if not view.rows:
        return available
    chosen = [row for row in available.rows if text_of(row) in view.rows]
    if not chosen:
        raise UserError(f"None of the chosen rows is in the results folder (any more): {', '.join(view.rows)[:300]}.")
    wanted = {row.label for row in chosen}
    wanted |= {other.label for row in chosen if (other := baseline_row(row, available, view.baseline))}
    return replace(available, rows=tuple(row for row in available.rows if row.label in wanted))


def _too_many(table: Table) -> str:
    runs = sum(len(row.runs) for row in table.rows)
    if len(table.rows) <= MOST_ROWS and runs <= MOST_RUNS:
        return ""
    return (
        f"{len(table.rows)} rows of {runs} runs: choose at most {MOST_ROWS} rows of {MOST_RUNS} runs to compare them."
    )


def _examples(library: Library, snapshot: Snapshot, available: Table, table: Table) -> Examples:
    """Those of all rows, where they are few: another choice of rows then reads nothing."""
    read = table if _too_many(available) else available
    labels = tuple(row.label for row in read.rows)
    return library.recent.get(
        ("examples", snapshot.version, labels), lambda: read_examples(run for row in read.rows for run in row.runs)
    )


def compared(library: Library, snapshot: Snapshot, view: View) -> Sequence[Difference]:
    """Each row against its baseline; none where that is refused."""
    chosen = select(library, snapshot, view)
    if chosen.refused:
        return ()
    tested = replace(view, metrics=())
    return library.recent.get(
        ("differences", snapshot.version, tested),
        lambda: differences(chosen.table, view.baseline, chosen.examples, primary=chosen.primary),
    )


def said(library: Library, snapshot: Snapshot, view: View) -> Sequence[str]:
    """The verdict on the chosen rows; none where they do not belong in one table."""
    chosen = select(library, snapshot, view)
    if chosen.refused or chosen.clashes:
        return ()
    return library.recent.get(
        ("verdict", snapshot.version, replace(view, metrics=())),
        lambda: verdict(
            tests(chosen.table, compared(library, snapshot, view), chosen.examples, chosen.primary, view.baseline)
        ),
    )
