"""The plots of a comparison. Needs matplotlib: import it where something is drawn, not where a command is parsed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from alignbench.results.compared.paired import Difference
from alignbench.results.compared.table import Table
from alignbench.results.shown.plots.curves import training_curves
from alignbench.results.shown.plots.data import Curve, training
from alignbench.results.shown.plots.forest import forest
from alignbench.results.shown.plots.frontier import frontier
from alignbench.results.shown.plots.overoptimisation import along_training
from alignbench.results.shown.plots.scatter import cost, trade_off
from alignbench.results.shown.plots.style import Plot, Styles, literal_text
from alignbench.results.shown.plots.text import shown

FIRST = ("frontier", "differences", "training")
"""The pictures that a report begins with."""
NAMES = (*FIRST, "sycophancy", "diversity", "cost", "overoptimisation", "exploratory", "training_more")
"""In the order of a reader's questions."""


def draw(table: Table, differences: Sequence[Difference], names: Sequence[str] = NAMES) -> list[Plot]:
    """The plots of these names; one without data says why.

    Rows of different data or models share no axis: each pair has its plots. An algorithm looks alike in all of them."""
    styles = Styles.of(table)
    settings = list(dict.fromkeys((row.identity.model, row.identity.data) for row in table.rows))
    plots: list[Plot] = []
    with literal_text():
        for i, (model, data) in enumerate(settings, start=1):
            rows = [row for row in table.rows if (row.identity.model, row.identity.data) == (model, data)]
            found = _draw(dataclasses.replace(table, rows=tuple(rows)), differences, styles, names)
            if len(settings) > 1:
                where = f"{shown(model, limit=60)} on {shown(data, limit=60)}"
                found = [dataclasses.replace(p, name=f"{p.name}-{i}", title=f"{p.title}: {where}") for p in found]
            plots += found
    return plots


def _draw(table: Table, differences: Sequence[Difference], styles: Styles, names: Sequence[str]) -> list[Plot]:
    @functools.cache
    def curves() -> Mapping[tuple[str, ...], Mapping[str, Curve]]:
        return {row.label: training(row.runs) for row in table.rows if not row.baseline}

    plots: Mapping[str, Callable[[], Plot]] = {
        "frontier": lambda: frontier(table, curves(), styles),
        "differences": lambda: forest(differences, table, styles),
        "sycophancy": lambda: trade_off("sycophancy", table, styles),
        "diversity": lambda: trade_off("diversity", table, styles),
        "cost": lambda: cost(table, styles),
        "overoptimisation": lambda: along_training(table, styles),
        "exploratory": lambda: forest(differences, table, styles, primary=False),
        "training": lambda: training_curves(table, curves(), styles),
        "training_more": lambda: training_curves(table, curves(), styles, more=True),
    }
    return [plots[name]() for name in names]
