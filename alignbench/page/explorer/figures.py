"""The report's plots as numbers, for the page to draw."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from alignbench.results.compared.paired import Difference
from alignbench.results.compared.table import Table
from alignbench.results.shown.plots import draw
from alignbench.results.shown.plots.curves import training_curves
from alignbench.results.shown.plots.data import Curve
from alignbench.results.shown.plots.numbers import as_json
from alignbench.results.shown.plots.style import Styles, literal_text

_DRAWING = threading.Lock()
"""matplotlib's settings are global: one plot at a time."""


def plots(table: Table, differences: Sequence[Difference], name: str) -> list[dict[str, Any]]:
    """The plot of this name, once for each model and data source."""
    with _DRAWING:
        return [as_json(plot) for plot in draw(table, differences, [name])]


def curves(table: Table, figures: dict[tuple[str, ...], dict[str, Curve]]) -> dict[str, Any]:
    """All figures of a training, in one plot."""
    with _DRAWING, literal_text():
        first, more = (as_json(training_curves(table, figures, Styles.of(table), more=more)) for more in (False, True))
    notes = [*first["notes"], *more["notes"]]
    return {**first, "notes": notes, "panels": [*first["panels"], *more["panels"]]}
