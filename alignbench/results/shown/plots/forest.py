"""Paired differences against the baseline, a forest plot for each metric."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence

from alignbench.records import Direction
from alignbench.results.compared.paired import Difference
from alignbench.results.compared.table import Table
from alignbench.results.shown.cells import range_of
from alignbench.results.shown.plots.style import INK, Plot, Style, Styles, new_figure, row_label
from alignbench.results.shown.plots.text import metric_name, shown

ARROWS = {Direction.HIGHER: "↑", Direction.LOWER: "↓", Direction.NEITHER: ""}
TITLE, EXPLORATORY = "Differences of primary metrics", "Exploratory differences"
WIDEST = 34
"""Characters of a row's name on one line."""


def forest(differences: Sequence[Difference], table: Table, styles: Styles, *, primary: bool = True) -> Plot:
    """Of the primary metrics, which are tested, or of all others."""
    plot, title = ("differences", TITLE) if primary else ("exploratory", EXPLORATORY)
    labels = {row.label for row in table.rows}
    drawn = [
        d
        for d in differences
        if math.isfinite(d.value) and d.row in labels and d.metric in table.metrics and d.primary == primary
    ]
    if not drawn:
        which = "a primary metric" if primary else "another metric"
        return Plot(plot, title, f"Left out: there is no paired difference of {which} to draw.")
    metrics = [name for name in table.metrics if any(d.metric == name for d in drawn)]
    lines = list(dict.fromkeys((d.row, d.baseline) for d in drawn))
    baselines = list(dict.fromkeys(baseline for _, baseline in lines))
    position = {line: -i for i, line in enumerate(lines)}
    names = [_name(row, baseline if len(baselines) > 1 else ()) for row, baseline in lines]
    columns = min(
        3 if max(len(line) for name in names for line in name.split("\n")) <= WIDEST // 2 else 2, len(metrics)
    )
    rows = math.ceil(len(metrics) / columns)
    tallest = max(name.count("\n") + 1 for name in names)
    figure = new_figure(
        11 if columns == 3 else 4.8 * columns, 0.3 + rows * (0.9 + (0.06 + 0.15 * tallest) * len(lines))
    )
    for i, metric in enumerate(metrics):
        axes = figure.add_subplot(rows, columns, i + 1)
        family = shown(metric.partition("/")[0], limit=30)
        axes.set_title(f"{family}\n{metric_name(metric)} {ARROWS[table.metrics[metric]]}".rstrip(), fontsize=9)
        least, most = range_of(metric, table.rows)
        span = most - least  # a difference can be no more than that
        axes.axvline(0.0, color=INK, linewidth=0.8)
        for d in (d for d in drawn if d.metric == metric):
            style: Style = styles.by_row[d.row]
            low, high = (min(max(end, -span), span) if math.isfinite(end) else d.value for end in (d.low, d.high))
            y = position[d.row, d.baseline]
            axes.plot([low, high], [y, y], color=style.colour, linewidth=1.6, solid_capstyle="butt", label=style.label)
            face = style.colour if d.significant else "white"
            axes.plot(
                d.value, y, marker=style.marker, markersize=6.5, color=style.colour, markerfacecolor=face, linestyle="",
                label=style.label,
            )  # fmt: skip
        axes.set_ylim(-len(lines) + 0.4, 0.6)
        axes.set_yticks([position[line] for line in lines], names)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=3)
    against = row_label(baselines[0]) if len(baselines) == 1 else "its baseline"
    tested = (
        "a filled marker is significant at 5% after Holm's correction over the comparisons of primary metrics, a hollow one is not"
        if primary
        else "they are not corrected, nothing is tested, and one in twenty leaves out 0 by chance"
    )
    text = (
        f"Each row less {against}, on the same evaluation examples. Bars are 95% intervals over seeds and examples; {tested}. Where ↑ "
        "stands, right of the line is better; where ↓ stands, left of it."
    )
    notes = _lacking(drawn, metrics)
    alone = dict.fromkeys(row_label(d.row) for d in drawn if not d.over_seeds)
    if alone:
        notes.append(
            f"One seed, so the interval is over examples only and leaves training noise out: {', '.join(alone)}."
        )
    return Plot(plot, title, text, figure, tuple(notes))


def _lacking(drawn: Sequence[Difference], metrics: Sequence[str]) -> list[str]:
    """The rows that have a line without a mark, and in which panels."""
    panels: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for metric in metrics:
        have = {d.row for d in drawn if d.metric == metric}
        lacking = tuple(dict.fromkeys(row_label(d.row) for d in drawn if d.row not in have))
        if lacking:
            panels[lacking].append(metric_name(metric))
    return [
        f"Not compared in {', '.join(names)}, which was not measured of both it and its baseline: {', '.join(rows)}."
        for rows, names in panels.items()
    ]


def _name(row: Sequence[str], baseline: Sequence[str]) -> str:
    """On as few lines as it takes, however many settings a label has."""
    less = textwrap.wrap(f"less {row_label(baseline)}", WIDEST)[:3] if baseline else []
    return "\n".join([*textwrap.wrap(row_label(row), WIDEST)[:4], *less])
