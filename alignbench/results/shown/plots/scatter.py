"""One figure of each row against another: what is gained and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from alignbench.records import Direction
from alignbench.results.compared.statistics import interval_over_seeds
from alignbench.results.compared.table import Table
from alignbench.results.shown.cells import both_sides
from alignbench.results.shown.plots.style import Plot, Style, Styles, label_axis, legend, new_figure
from alignbench.results.shown.plots.text import metric_name

GOLD = ("helpfulness/gold_reward", "optimization/gold_reward")
INTERVALS = "Bars are 95% intervals: over seeds where a row has several, else over evaluation examples."


@dataclass(frozen=True)
class Point:
    """`x_error`, `y_error`: distances to the low and the high end of the interval, NaN where unknown."""

    style: Style
    x: float
    y: float
    x_error: tuple[float, float]
    y_error: tuple[float, float]


def draw_points(axes: Axes, points: Sequence[Point]) -> None:
    for point in points:
        style = point.style
        axes.errorbar(
            point.x, point.y,
            xerr=[[_drawn(e)] for e in point.x_error], yerr=[[_drawn(e)] for e in point.y_error],
            color=style.colour, marker=style.marker, markersize=7 * style.size, markeredgecolor="white", markeredgewidth=0.7,
            linestyle="", elinewidth=1.1, capsize=2, alpha=0.95, label=style.label,
        )  # fmt: skip


def _drawn(error: float) -> float:
    return error if math.isfinite(error) else 0.0


def trade_off(family: str, table: Table, styles: Styles) -> Plot:
    """A family of metrics against helpfulness."""
    name, title = family, f"{family.capitalize()} against helpfulness"
    x, y = _headline("helpfulness", table), _headline(family, table)
    if not x or not y:
        missing = " and ".join(kind for kind, found in (("helpfulness", x), (family, y)) if not found)
        return Plot(name, title, f"Left out: no run has a metric of {missing}.")
    rows = [row for row in table.rows if x in row.cells and y in row.cells]
    if len(rows) < 2:
        return Plot(name, title, f"Left out: fewer than two rows have {metric_name(x)} and {metric_name(y)}.")
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    draw_points(
        axes,
        [Point(styles[r], r.cells[x].value, r.cells[y].value, both_sides(r, x), both_sides(r, y)) for r in rows],
    )
    label_axis(axes, "x", x, table)
    label_axis(axes, "y", y, table)
    legend(figure, [styles[row] for row in rows])
    text = f"Each point is a row of the table: {metric_name(y)} against {metric_name(x)}. {INTERVALS}"
    notes = tuple(
        f"Not drawn, no {metric_name(metric)} was measured: {', '.join(lacking)}."
        for metric in (x, y)
        if (lacking := [styles[row].label for row in table.rows if metric not in row.cells])
    )
    return Plot(name, title, text, figure, notes)


def cost(table: Table, styles: Styles) -> Plot:
    """Seconds of a whole run against gold reward."""
    name, title = "cost", "Cost against gold reward"
    gold = next((metric for metric in GOLD if metric in table.metrics), "")
    rows = [row for row in table.rows if gold in row.cells]
    if len(rows) < 2:
        why = "no run has a gold reward, the truth that only a simulated world knows" if not rows else "one row only"
        return Plot(name, title, f"Left out: {why}.")
    points = []
    for row in rows:
        seconds = [math.fsum(run.record.cost.seconds.values()) for run in row.runs]
        half = interval_over_seeds(seconds) if len(seconds) > 1 else math.nan
        cell = row.cells[gold]
        below = half if math.isnan(half) else min(half, row.seconds)
        points.append(Point(styles[row], row.seconds, cell.value, (below, half), both_sides(row, gold)))
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    draw_points(axes, points)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]) if min(p.x for p in points) <= 0 else 0.0)
    axes.set_xlabel("seconds per run, all stages (wall time)")
    label_axis(axes, "y", gold, table)
    legend(figure, [styles[row] for row in rows])
    machines = {tuple(sorted(run.record.identity.hardware.items())) for row in rows for run in row.runs}
    text = (
        "Wall seconds of a whole run, SFT, rankings, reward model and evaluation included, against the gold reward "
        f"that it reached. {INTERVALS} Seconds have an interval over seeds only."
    )
    lacking = [styles[row].label for row in table.rows if row not in rows]
    notes = [f"Not drawn, no {metric_name(gold)} was measured: {', '.join(lacking)}."] if lacking else []
    if len(machines) > 1:
        notes.append(f"The runs were made on {len(machines)} kinds of machine: their seconds are not comparable.")
    return Plot(name, title, text, figure, tuple(notes))


def _headline(family: str, table: Table) -> str:
    """The family's metric that most rows have; of equals the first that has a better end."""
    metrics = [m for m in table.metrics if m.partition("/")[0] == family and table.metrics[m] is not Direction.NEITHER]
    return max(metrics, key=lambda metric: sum(metric in row.cells for row in table.rows), default="")
