"""The texts in the cells of the results table and of the differences: numbers, intervals and marks, whatever they are drawn with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from alignbench.records import Direction
from alignbench.results.compared.statistics import limits
from alignbench.results.compared.table import PAST_PEAK, UNANSWERED, Row, Table

if TYPE_CHECKING:
    from alignbench.results.compared.paired import Difference

ARROWS = {Direction.HIGHER: "↑", Direction.LOWER: "↓", Direction.NEITHER: ""}
NOT_APPLICABLE = "–"
NOT_ANY = "none"
"""In place of a size that no true difference has."""
BETTER, WORSE, OTHER = "▲△", "▼▽", "◆◇"
"""Marks of a significant difference: the first where its interval is over seeds, the second where over examples only."""
HOLLOW = "△▽◇"
"""The second of each."""
ROUNDING = 1e-12
"""An interval below it is none."""
Texts = Mapping[str, Sequence[str]]


def costs(table: Table) -> dict[str, list[str]]:
    """The rows below the metrics: seeds, and what a run cost, mean over seeds."""

    def texts(values: Iterable[float | None], scale: float, decimals: int) -> list[str]:
        return [NOT_APPLICABLE if v is None else f"{v / scale:.{decimals}f}" for v in values]

    rows = {
        "seeds": [str(len(row.seeds)) for row in table.rows],
        "seconds": texts((row.seconds for row in table.rows), 1, 0),
        "tokens per second": texts((row.tokens_per_second for row in table.rows), 1, 0),
        "peak memory, GiB": texts((row.peak_memory_bytes for row in table.rows), 2**30, 2),
        "peak GPU memory, GiB": texts((row.peak_gpu_memory_bytes for row in table.rows), 2**30, 2),
    }
    return {name: found for name, found in rows.items() if set(found) != {NOT_APPLICABLE}}


def amounts_of(table: Table, differences: Sequence[Difference]) -> tuple[Table, dict[str, list[str]]]:
    """The rows and metrics that have differences, and the texts: value, interval, effect size and mark."""
    by_cell = {(d.row, d.metric): d for d in differences}
    compared, measured = {d.row for d in differences}, {d.metric for d in differences}
    rows = [row for row in table.rows if row.label in compared]
    metrics = {name: direction for name, direction in table.metrics.items() if name in measured}
    one_seed = len({d.over_seeds for d in differences}) > 1

    def text(d: Difference | None, decimals: int) -> str:
        if d is None:
            return NOT_APPLICABLE
        decimals = _visible((d.high - d.low) / 2, decimals)
        low, high = (NOT_APPLICABLE if math.isnan(end) else _fixed(end, decimals) for end in (d.low, d.high))
        effect = "" if math.isnan(d.effect_size) else f" d {_fixed(d.effect_size, 1)}"
        sign = "*" if one_seed and not d.over_seeds else ""
        return f"{_fixed(d.value, decimals, '+')} [{low}, {high}]{sign}{effect} {mark(d, table) or ' '}"

    texts = {}
    for name in metrics:
        found = [by_cell.get((row.label, name)) for row in rows]
        decimals = _decimals((d.high - d.low) / 2 for d in found if d)
        texts[name] = [text(d, decimals) for d in found]
    return Table(tuple(rows), metrics), texts


def found_from(table: Table, differences: Sequence[Difference]) -> tuple[Table, dict[str, list[str]]]:
    """The rows and metrics that have differences, and from which size on each would have been found."""
    compared, texts = amounts_of(table, differences)
    by_cell = {(d.row, d.metric): d for d in differences}
    for name in texts:
        found = [by_cell.get((row.label, name)) for row in compared.rows]
        sizes = [math.nan if d is None else d.detectable for d in found]
        most = [math.inf if d is None else _largest(d, table) for d in found]
        decimals = _decimals(size for size in sizes if not math.isnan(size))
        texts[name] = [
            NOT_APPLICABLE if math.isnan(s) else NOT_ANY if s > possible else _fixed(s, _visible(s, decimals))
            for s, possible in zip(sizes, most, strict=True)
        ]
    return compared, texts


def _largest(difference: Difference, table: Table) -> float:
    """How far a row can be from its baseline in this metric: a win rate from .5 by .5."""
    baseline = next((row for row in table.rows if row.label == difference.baseline), None)
    if baseline is None or difference.metric not in baseline.cells:
        return math.inf
    (least, most), value = range_of(difference.metric, table.rows), baseline.cells[difference.metric].value
    return max(value - least, most - value) if least <= value <= most else math.inf


def mark(difference: Difference, table: Table) -> str:
    """▲ where the row is better than its baseline, ▼ worse, ◆ where neither way is better; "" where it may be noise."""
    if not difference.significant:
        return ""
    direction = table.metrics[difference.metric]
    up = (difference.value > 0) == (direction is Direction.HIGHER)
    kind = OTHER if direction is Direction.NEITHER else BETTER if up else WORSE
    return kind[not difference.over_seeds]


def marked(table: Table, differences: Sequence[Difference]) -> dict[str, list[str]]:
    """The cells, with the mark of each behind them where there are differences at all."""
    marks = {(d.row, d.metric): mark(d, table) for d in differences}
    if not any(marks.values()):
        return cells_of(table)
    return {
        name: [
            f"{text} {marks.get((row.label, name)) or ' '}" for row, text in zip(table.rows, texts, strict=True)
        ]
        for name, texts in cells_of(table).items()
    }  # fmt: skip


def cells_of(table: Table) -> dict[str, list[str]]:
    """What stands in the table: metric -> one text per row."""
    cells = [cell for row in table.rows for cell in row.cells.values()]
    mixed = len({cell.over_seeds for cell in cells}) > 1

    def text(row: Row, metric: str, decimals: int) -> str:
        cell = row.cells.get(metric)
        if cell is None:
            return UNANSWERED if metric in row.unanswered else NOT_APPLICABLE
        decimals = _visible(cell.half_interval, decimals)
        interval = _interval(row, metric, decimals)
        interval += (UNANSWERED if cell.missing else "") + (PAST_PEAK if cell.past_peak else "")
        sign = "" if not mixed else " " if cell.over_seeds or not interval else "*"
        return _fixed(cell.value, decimals) + interval + sign

    return {
        name: [text(row, name, decimals) for row in table.rows]
        for name in table.metrics
        for decimals in [_decimals(row.cells[name].half_interval for row in table.rows if name in row.cells)]
    }


def range_of(metric: str, rows: Iterable[Row]) -> tuple[float, float]:
    """What the metric can be, by its name or by what the rows' records say of it."""
    found = (run.record.metrics.get(metric) for row in rows for run in row.runs)
    return limits(metric, share=any(each is not None and each.share for each in found))


def both_sides(row: Row, metric: str) -> tuple[float, float]:
    """Of the interval as far as the metric can be there. What lies outside itself goes by another meaning of the name: in percent, say."""
    cell = row.cells[metric]
    low, high = cell.low, cell.high
    least, most = range_of(metric, [row])
    if least <= cell.value <= most:
        low, high = max(low, least), min(high, most)
    return cell.value - low, high - cell.value


def _interval(row: Row, metric: str, decimals: int) -> str:
    """±, or both ends where they are not equally far."""
    cell = row.cells[metric]
    if not cell.half_interval > ROUNDING:  # unknown, or known as the KL of a model from itself is
        return ""
    below, above = (f"{end:.{decimals}f}" for end in both_sides(row, metric))
    return f" ±{above}" if below == above else f" −{below} +{above}"


def _decimals(halves: Iterable[float]) -> int:
    """Two or three, so that the smallest interval of the metric still shows a digit."""
    smallest = min((half for half in halves if half > 0), default=0.1)
    return 2 if smallest >= 0.01 else 3


def _visible(half: float, decimals: int) -> int:
    """More of them in a cell whose interval would be all zeros, and look like certainty; up to six, for beyond is rounding."""
    if not half > 0 or round(half, decimals) > 0:
        return decimals
    needed = math.ceil(-math.log10(half))
    return needed if needed <= 6 else decimals


def _fixed(value: float, decimals: int, sign: str = "") -> str:
    rounded = round(value, decimals) + 0.0  # + 0.0: no "-0.00"
    return f"{rounded:{sign if rounded else ''}.{decimals}f}"
