"""How training went: one panel for each figure that an algorithm logged, one line for each row, bands over seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from alignbench.results.compared.statistics import limits
from alignbench.results.compared.table import Row, Table
from alignbench.results.shown.plots.data import Array, Curve
from alignbench.results.shown.plots.style import Plot, Styles, legend, new_figure
from alignbench.results.shown.plots.text import UNITS, metric_name

FIRST = (
    "reward",
    "kl",
    "entropy",
    "gold_reward",
    "objective",
    "length",
    "loss",
    "policy_loss",
    "value_loss",
    "accuracy",
    "margin",
)
HIDDEN = frozenset({"learning_rate", "tokens", "pairs"})
LEADING = 3
"""Panels of the first picture; all others are in the second."""
MOST_PANELS = 12
MOST_POINTS = 100
MARKS = 5
"""Markers on a line, to know it by."""
TITLE, MORE = "Training curves", "More training curves"


def training_curves(
    table: Table, curves: Mapping[tuple[str, ...], Mapping[str, Curve]], styles: Styles, *, more: bool = False
) -> Plot:
    """The leading figures, or with `more` the others."""
    plot, title = ("training_more", MORE) if more else ("training", TITLE)
    trained = [row for row in table.rows if curves.get(row.label)]
    logged = dict.fromkeys(name for row in trained for name in curves[row.label])
    ordered = [*(n for n in FIRST if n in logged), *(n for n in logged if n not in FIRST and n not in HIDDEN)]
    names = ordered[LEADING:MOST_PANELS] if more else ordered[:LEADING]
    if not names:
        why = "no run has further training figures" if ordered else "no run has training figures"
        return Plot(plot, title, f"Left out: {why} in train.jsonl.")
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure = new_figure(3.67 * columns, 0.4 + 2.3 * lines)
    faint = min(0.15, 1 / len(trained))  # many bands upon one another hide the lines
    for i, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.set_title(metric_name(name))
        axes.set_ylabel(UNITS.get(name, ""))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        for k, row in enumerate(trained):
            if name in curves[row.label]:
                curve, style = curves[row.label][name].thinned(MOST_POINTS), styles[row]
                axes.plot(
                    curve.updates, curve.mean, color=style.colour, linestyle=style.line, linewidth=1.5, marker=style.marker,
                    markersize=5 * style.size, markeredgecolor="white", markeredgewidth=0.5, markevery=_marked(len(curve.updates), k),
                    label=style.label,
                )  # fmt: skip
                low, high = _band(curve, name)
                axes.fill_between(
                    curve.updates, low, high, color=style.colour, alpha=faint, linewidth=0, label=style.label
                )
        axes.set_xlabel("update")
    legend(figure, [styles[row] for row in trained], line=True)
    text = (
        "What each algorithm's own stage logged, measured on the training prompts as it went. Lines are means over "
        "seeds; bands are 95% intervals over seeds (Student's t), and one seed has none. KL is in nats per response "
        f"from the SFT model. Stages of more than {MOST_POINTS} updates are drawn as means of neighbouring updates."
    )
    notes = _lacking(trained, curves, names, styles)
    silent = [styles[row].label for row in table.rows if not row.baseline and row not in trained]
    if silent:
        notes.append(f"No line, for its stage logged no update in train.jsonl: {', '.join(silent)}.")
    if (more or len(ordered) <= LEADING) and len(ordered) > MOST_PANELS:
        notes.append(f"Not drawn, and in train.jsonl: {', '.join(map(metric_name, ordered[MOST_PANELS:]))}.")
    return Plot(plot, title, text, figure, tuple(notes))


def _marked(points: int, line: int) -> list[int]:
    """Where a line has its markers: each line elsewhere, so that lines upon one another are still told apart."""
    if points <= MARKS:
        return list(range(points))
    shift = (0.5 + 0.382 * line) % 1.0
    return [int((i + shift) * points / MARKS) for i in range(MARKS)]


def _band(curve: Curve, name: str) -> tuple[Array, Array]:
    """As far as the figure can be; an estimate that is beyond it keeps the line itself."""
    least, most = limits(name)
    low = np.maximum(curve.mean - curve.half, np.minimum(least, curve.mean))
    return low, np.minimum(curve.mean + curve.half, np.maximum(most, curve.mean))


def _lacking(
    trained: Sequence[Row], curves: Mapping[tuple[str, ...], Mapping[str, Curve]], names: Sequence[str], styles: Styles
) -> list[str]:
    """Of each panel the algorithms that have no line in it."""
    panels: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        lacking = tuple(styles[row].label for row in trained if name not in curves[row.label])
        if lacking:
            panels[lacking].append(metric_name(name))
    return [
        f"No line of {', '.join(rows)}: its stage logs no {' and no '.join(found)}." for rows, found in panels.items()
    ]
