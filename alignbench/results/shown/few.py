"""As many rows as a person can look at: what a report shows of a table that has thousands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from alignbench.results.compared.paired import Difference
from alignbench.results.compared.table import Row, Table, baseline_row

MOST = 60
Item = TypeVar("Item")


def few(table: Table, differences: Sequence[Difference]) -> tuple[Table, Sequence[Difference]]:
    """Of each algorithm some rows, evenly over its settings, with the SFT models that they are compared with; and a note that says so."""
    if len(table.rows) <= MOST:
        return table, differences
    of_algorithm: dict[str, list[Row]] = {}
    for row in table.rows:
        if not row.baseline:
            of_algorithm.setdefault(row.label[0], []).append(row)
    each = max(1, MOST // max(1, len(of_algorithm)))
    chosen = [row for rows in _spread(list(of_algorithm.values()), MOST) for row in _spread(rows, each)]
    kept = {row.label for row in chosen}
    kept |= {other.label for row in chosen if (other := baseline_row(row, table))}
    rows = tuple(row for row in table.rows if row.label in kept) or table.rows[:MOST]
    note = (
        f"{len(rows)} of {len(table.rows)} rows are shown, of each algorithm some, evenly over its settings: --only chooses, "
        "--output FILE.csv has all."
    )
    shown = [d for d in differences if d.row in kept and d.baseline in kept]
    return replace(table, rows=rows, notes=(note, *table.notes)), shown


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[0]]
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
