"""How training went: one panel for each figure that an algorithm logged, one line for each row, bands over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.ticker import MaxNLocator

from alignbench.results.compared.table import Table
from alignbench.results.shown.plots.data import Curve
from alignbench.results.shown.plots.style import Plot, Styles, legend, new_figure
from alignbench.results.shown.plots.text import UNITS, metric_name

FIRST = ("reward", "gold_reward", "objective", "kl", "entropy", "length", "loss", "policy_loss", "value_loss", "accuracy", "margin")  # fmt: skip
HIDDEN = frozenset({"learning_rate", "tokens", "pairs"})
MOST_PANELS = 12
MOST_POINTS = 150
TITLE = "Training curves"


def training_curves(table: Table, curves: Mapping[tuple[str, ...], Mapping[str, Curve]], styles: Styles) -> Plot:
    trained = [row for row in table.rows if curves.get(row.label)]
    logged = dict.fromkeys(name for row in trained for name in curves[row.label])
    ordered = [*(n for n in FIRST if n in logged), *(n for n in logged if n not in FIRST and n not in HIDDEN)]
    names = ordered[:MOST_PANELS]
    if not names:
        return Plot("training", TITLE, "Left out: no run has training figures in train.jsonl.")
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure = new_figure(11, 0.4 + 2.3 * lines)
    for i, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.set_title(metric_name(name))
        axes.set_ylabel(UNITS.get(name, ""))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        for row in trained:
            if name in curves[row.label]:
                curve, style = curves[row.label][name].thinned(MOST_POINTS), styles[row]
                marker = "o" if len(curve.updates) == 1 else ""
                axes.plot(
                    curve.updates, curve.mean, color=style.colour, linestyle=style.line, linewidth=1.5, marker=marker,
                    label=style.label,
                )  # fmt: skip
                low, high = curve.mean - curve.half, curve.mean + curve.half
                axes.fill_between(
                    curve.updates, low, high, color=style.colour, alpha=0.15, linewidth=0, label=style.label
                )
        if i + columns >= len(names):
            axes.set_xlabel("update")
    legend(figure, [styles[row] for row in trained], line=True)
    text = (
        "What each algorithm's own stage logged, measured on the training prompts as it went. Lines are means over "
        "seeds; bands are 95% intervals over seeds (Student's t), and one seed has none. KL is in nats per response "
        f"from the SFT model. Stages of more than {MOST_POINTS} updates are drawn as means of neighbouring updates."
    )
    notes = []
    silent = [styles[row].label for row in table.rows if not row.baseline and row not in trained]
    if silent:
        notes.append(f"Nothing was logged for: {', '.join(silent)}.")
    if len(ordered) > len(names):
        notes.append(f"Not drawn, and in train.jsonl: {', '.join(map(metric_name, ordered[MOST_PANELS:]))}.")
    return Plot("training", TITLE, text, figure, tuple(notes))
