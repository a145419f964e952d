"""The table and its differences as JSON. The texts are those that `alignbench compare` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from alignbench.errors import UserError, unknown_name
from alignbench.page.explorer.library import Library, Snapshot
from alignbench.page.explorer.view import View, compared, said, select, text_of
from alignbench.results.compared.table import COMPONENTS, Row, Table, baseline_row
from alignbench.results.disk.record import Status
from alignbench.results.shown import render
from alignbench.results.shown.cells import ARROWS, costs, mark, marked
from alignbench.results.shown.plots.text import UNITS, metric_name
from alignbench.results.shown.report import difference_texts

ROWS_A_PAGE = 50
MOST_CHOICES = 400
"""Rows that a menu lists."""
MOST_LINES = 30
"""Of the notes and of the runs that are not in the table."""
FACETS = ("algo", *COMPONENTS)
SECONDS = "seconds"


def table(library: Library, snapshot: Snapshot, view: View, sort: str, page: int) -> dict[str, Any]:
    """One page of the rows, and all that the choices above the table need."""
    selection = select(library, snapshot, view)
    ordered = _sorted(selection.table, sort)
    start, page, pages = paged(len(ordered), ROWS_A_PAGE, page)
    part = replace(selection.shown, rows=tuple(ordered[start : start + ROWS_A_PAGE]))
    cells, footer = marked(part, ()), costs(part)
    notes = render.remarks(part)
    return {
        "version": snapshot.version,
        "folder": str(library.folder),
        "problem": snapshot.problem,
        "runs": sum(not run.record.baseline for run in snapshot.runs),
        "rows": [
            {
                "label": row.label,
                "name": text_of(row),
                "baseline": row.baseline,
                "against": _against(row, selection.table, view),
                "runs": [
                    {"id": name, "seed": run.record.identity.seed}
                    for run in row.runs[:MOST_LINES]
                    if (name := library.id_of(run)) in snapshot.by_id  # not one that was interpolated
                ],
                "cells": {
                    name: [texts[i].strip(), known(row.cells[name].value if name in row.cells else math.nan)]
                    for name, texts in cells.items()
                },
                "costs": {name: texts[i] for name, texts in footer.items()},
            }
            for i, row in enumerate(part.rows)
        ],
        "count": len(ordered),
        "page": page,
        "pages": pages,
        "metrics": [_metric(name, selection.available) for name in part.metrics],
        "primary": selection.primary,
        "every_metric": [_metric(name, selection.available) for name in selection.available.metrics],
        "every_row": [text_of(row) for row in selection.available.rows[:MOST_CHOICES]],
        "facets": _facets(snapshot.table),
        "clashes": selection.clashes,
        "refused": selection.refused,
        "caption": render.caption(part),
        "notes": notes[:MOST_LINES],
        "more_notes": max(0, len(notes) - MOST_LINES),
    }


def table_differences(library: Library, snapshot: Snapshot, view: View) -> dict[str, Any]:
    """Each with the mark that `compare` gives it."""
    selection = select(library, snapshot, view)
    found = compared(library, snapshot, view)
    return {
        "version": snapshot.version,
        "refused": selection.refused,
        "verdict": said(library, snapshot, view),
        "caption": render.caption(selection.table, found) if found else [],
        "differences": [
            {**difference_texts(d), "size": known(d.value), "mark": mark(d, selection.table)}
            for metric in selection.metrics
            for d in found
            if d.metric == metric
        ],
    }


def run_list(snapshot: Snapshot, search: str, status: str, page: int) -> dict[str, Any]:
    """One page of the runs, the latest first, with what became of each."""
    statuses = [s.value for s in Status]
    if status and status not in statuses:
        raise unknown_name("status", status, statuses)
    own = [(name, run.record) for name, run in snapshot.by_id.items() if not run.record.baseline]
    needle = search.casefold()
    found = [
        (name, record)
        for name, record in own
        if (not status or record.status.value == status)
        and (not needle or needle in f"{name} {record.error or ''}".casefold())
    ]
    found.sort(key=lambda item: item[0], reverse=True)
    start, page, pages = paged(len(found), ROWS_A_PAGE, page)
    counts = {name: sum(record.status.value == name for _, record in own) for name in statuses}
    return {
        "version": snapshot.version,
        "problem": snapshot.problem,
        "counts": {name: count for name, count in counts.items() if count},
        "count": len(found),
        "page": page,
        "pages": pages,
        "runs": [
            {
                "id": name,
                "algo": record.identity.algo_label or record.identity.algo,
                "seed": record.identity.seed,
                "status": record.status.value,
                "error": record.error or "",
            }
            for name, record in found[start : start + ROWS_A_PAGE]
        ],
        "broken": [f"{run.path.name}: {run.reason}" for run in snapshot.broken[:MOST_LINES]],
    }


def page_of(text: str) -> int:
    if not text:
        return 1
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise UserError(f"page={text[:40]} must be a number, 1 or more.")
    return int(text)


def paged(count: int, size: int, page: int) -> tuple[int, int, int]:
    """Where the page begins, which one it is, and how many there are: one that is too high is the last."""
    pages = max(1, math.ceil(count / size))
    page = min(max(page, 1), pages)
    return (page - 1) * size, page, pages


def known(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _against(row: Row, shown: Table, view: View) -> str:
    """What it is compared with; "" for a row that is its own baseline."""
    other = baseline_row(row, shown, view.baseline)
    return text_of(other) if other and other is not row else ""


def _metric(name: str, shown: Table) -> dict[str, str]:
    return {
        "name": name,
        "family": name.partition("/")[0],
        "label": metric_name(name),
        "unit": UNITS.get(name.rpartition("/")[2], ""),
        "arrow": ARROWS[shown.metrics[name]],
    }


def _sorted(shown: Table, sort: str) -> Sequence[Row]:
    """By a metric or by `seconds`, with `-` before it from high to low; rows that lack it come last. "": as `compare` has it."""
    name = sort.removeprefix("-")
    if not name:
        return shown.rows
    values = {
        row.label: row.seconds if name == SECONDS else row.cells[name].value
        for row in shown.rows
        if name == SECONDS or name in row.cells
    }
    if not values and shown.rows:
        raise unknown_name("column", name, [SECONDS, *shown.metrics])
    have = [row for row in shown.rows if row.label in values]
    have.sort(key=lambda row: values[row.label], reverse=sort.startswith("-"))
    return [*have, *(row for row in shown.rows if row.label not in values)]


def _facets(shown: Table) -> dict[str, list[str]]:
    """What rows can be chosen by: the components of which there are several."""
    found = {
        name: sorted({str(value) for row in shown.rows if (value := getattr(row.identity, name))}) for name in FACETS
    }
    return {name: values[:MOST_CHOICES] for name, values in found.items() if len(values) > 1}
