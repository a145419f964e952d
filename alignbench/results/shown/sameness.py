"""Draws `alignbench compare --sameness`: how alike the responses of each two rows are."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from alignbench.records import Metric
from alignbench.results.compared.sameness import PROMPTS, Alike, sameness
from alignbench.results.compared.table import Table
from alignbench.results.shown.cells import NOT_APPLICABLE
from alignbench.results.shown.export import formula_free, json_text
from alignbench.results.shown.grid import Grid
from alignbench.results.shown.leaderboard import in_form
from alignbench.results.shown.render import remarks

HEADER = ("rows", "same text", "between", "within", "apart", "prompts")
LEGEND = (
    "same text, between: of a response of one row and one of the other to the same prompt, the share that are the same and the mean BLEU (of each "
    "against the other, 0 to 1); within: the mean BLEU of two responses of one row. apart: within (the mean of both rows) less between: 0 "
    "where two rows answer as one model would, whatever its diversity.",
    f"± is half a 95% interval over prompts (clustered; at most {PROMPTS} of them), training noise left out. Responses of the same number share their chances and are "
    "not compared. BLEU counts words in common: the same answer in other words is no likeness.",
)


def draw(table: Table, form: str) -> str:
    """As text in one of the formats of `alignbench compare`."""
    found, problems = sameness(table)
    below = [*LEGEND, *problems, *remarks(table)]
    if form == "json":
        return json_text({"pairs": [_content(each) for each in found], "notes": below})
    if form == "csv":
        return _csv(found)
    return in_form(Grid(HEADER, [[_line(each) for each in found]]), below, form, "--sameness")


def _line(each: Alike) -> list[str]:
    within = " / ".join(f"{metric.value:.2f}" for metric in each.within)
    cells = [f"{' × '.join(each.rows)}", *map(_with_interval, (each.same, each.between)), within]
    return [*cells, _with_interval(each.apart), str(each.apart.n)]


def _content(each: Alike) -> dict[str, Any]:
    metrics = {"same": each.same, "between": each.between, "apart": each.apart}
    return {
        "rows": each.rows,
        **{name: _figures(metric) for name, metric in metrics.items()},
        "within": [_figures(metric) for metric in each.within],
        "prompts": each.apart.n,
    }


def _figures(metric: Metric) -> dict[str, float]:
    return {"value": metric.value, "low_95": metric.low, "high_95": metric.high}


def _with_interval(metric: Metric) -> str:
    half = (metric.high - metric.low) / 2
    return f"{metric.value:.2f} ±{NOT_APPLICABLE if math.isnan(half) else f'{half:.2f}'}"


def _csv(found: Sequence[Alike]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ("same", "between", "within_one", "within_other", "apart")
    writer.writerow(["one", "other", *(f"{n}{end}" for n in names for end in ("", "_low_95", "_high_95")), "prompts"])
    for each in found:
        metrics = (each.same, each.between, *each.within, each.apart)
        values = [
            "" if math.isnan(value) else repr(value)
            for metric in metrics
            for value in (metric.value, metric.low, metric.high)
        ]
        writer.writerow([*map(formula_free, each.rows), *values, each.apart.n])
    return buffer.getvalue()
