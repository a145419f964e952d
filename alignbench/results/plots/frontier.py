"""The KL-gold frontier: what an optimised proxy gives in truth, against how far the policy went (Gao et al. 2022, arXiv
2210.10760)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from alignbench.results.plots.data import RowRuns
from alignbench.results.plots.overoptimisation import Fit, Form, fit
from alignbench.results.plots.scatter import GOLD, INTERVALS, Point, both_sides, draw_points
from alignbench.results.plots.style import Plot, Styles, label_axis, legend, new_figure
from alignbench.results.plots.text import shown
from alignbench.results.table import Cell, Row, Table

KL, BOUND, PROXY = "optimization/kl", "optimization/kl_bound", "optimization/proxy_reward"
TITLE = "KL-gold frontier"
PATH_POINTS = 40


def frontier(behind: Sequence[RowRuns], table: Table, styles: Styles) -> Plot:
    """Gold reward against sqrt(KL), the proxy reward beside it, and Gao's curve through each algorithm's rows."""
    metrics = [next((metric for metric in GOLD if metric in table.metrics), "gold"), PROXY]
    placed = {metric: [row for row in table.rows if _kl(row) and metric in row.cells] for metric in metrics}
    panels = [metric for metric in metrics if len(placed[metric]) > 1]
    absent = [
        f"{what} is left out: {'fewer than two rows have' if placed[metric] else 'no run has'} it beside a KL"
        for what, metric in zip(("gold reward", "proxy reward"), metrics, strict=True)
        if metric not in panels
    ]
    if not panels:
        return Plot("frontier", TITLE, f"Left out: {'; '.join(absent)}.")
    figure = new_figure(11, 4.6)
    fits: list[str] = []
    for i, metric in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        _paths(axes, behind, styles, "reward" if metric == PROXY else "gold_reward")
        if metric != PROXY:
            fits += _fits(axes, behind, styles, metric)
        draw_points(axes, [_point(row, metric, styles) for row in placed[metric]])
        axes.set_xlabel("√KL from the SFT model (√ nats per response)")
        label_axis(axes, "y", metric, table)
        axes.set_title("gold reward: the truth" if metric != PROXY else "proxy reward: what was optimised")
    rows = [row for row in table.rows if any(row in placed[metric] for metric in panels)]
    extra = [Line2D([], [], color="#777777", linewidth=0.8, alpha=0.7, label="along training")]
    if any("=" in line for line in fits):
        extra.append(Line2D([], [], color="#777777", linewidth=2, label="fit (Gao et al.)"))
    legend(figure, [styles[row] for row in rows], extra=extra)
    text = (
        f"Each point is a row of the table, placed by the square root of its KL. {INTERVALS} Thin lines follow "
        "training, on training prompts. A proxy that rises while the gold reward falls is over-optimised."
    )
    notes = list(fits)
    if any(BOUND in row.cells for row in rows):
        notes.append("The best of n responses are placed at the known upper bound of their KL.")
    if len({(row.identity.annotator, row.identity.reward) for row in rows if row.identity.reward}) > 1:
        notes.append("The rows have different annotators or reward models: their proxy rewards are not on one scale.")
    notes += [f"{line.capitalize()}." for line in absent]
    return Plot("frontier", TITLE, text, figure, tuple(notes))


def _kl(row: Row) -> Cell | None:
    return row.cells.get(KL) or row.cells.get(BOUND)


def _distance(row: Row) -> float:
    """sqrt(KL). An estimated KL near zero may be negative."""
    cell = _kl(row)
    return math.sqrt(max(cell.value, 0.0)) if cell else math.nan


def _point(row: Row, metric: str, styles: Styles) -> Point:
    kl, d = row.cells.get(KL) or row.cells[BOUND], _distance(row)
    ends = [math.sqrt(max(kl.value + sign * kl.half_interval, 0.0)) for sign in (-1, 1)]
    return Point(styles[row], d, row.cells[metric].value, (d - ends[0], ends[1] - d), both_sides(row.cells[metric]))


def _paths(axes: Axes, rows: Sequence[RowRuns], styles: Styles, figure: str) -> None:
    for found in rows:
        curves = found.curves
        if "kl" in curves and figure in curves and len(curves["kl"].updates) == len(curves[figure].updates):
            kl, reward = (curves[name].thinned(PATH_POINTS).mean for name in ("kl", figure))
            axes.plot(np.sqrt(np.maximum(kl, 0.0)), reward, color=styles[found.row].colour, linewidth=0.8, alpha=0.6)


def _fits(axes: Axes, rows: Sequence[RowRuns], styles: Styles, metric: str) -> list[str]:
    """Draws a curve for each algorithm and proxy with enough rows; says what was fitted and what was not."""
    sweeps: dict[tuple[str | None, ...], list[RowRuns]] = defaultdict(list)
    for found in rows:
        if not found.row.baseline and _kl(found.row) and metric in found.row.cells:
            identity = found.row.identity
            sweeps[found.row.label[0], identity.annotator, identity.reward].append(found)
    several = len({key[1:] for key in sweeps}) > 1
    fitted, refused = [], defaultdict[str, list[str]](list)
    for (algorithm, *proxy), sweep in sweeps.items():
        name = shown(" ".join([str(algorithm), *(str(part) for part in proxy if part and several)]), limit=60)
        form = Form.BEST_OF_N if all(BOUND in found.row.cells for found in sweep) else Form.RL
        points = [(_distance(found.row), found.row.cells[metric].value, _start(found, metric)) for found in sweep]
        curve = fit(form, [d for d, _, _ in points], [gold - start for _, gold, start in points])
        if isinstance(curve, Fit):
            start = math.fsum(start for _, _, start in points) / len(points)
            _draw_fit(axes, curve, max(d for d, _, _ in points), start, styles[sweep[0].row].colour)
            fitted.append(f"{name}: {curve.text()}, {len(points)} rows.")
        else:
            refused[curve].append(name)
    notes = []
    if fitted:
        notes.append(
            "The thick curves are those of Gao et al. 2022, fitted by least squares to the rows of one algorithm: "
            "d = √KL, R the gold reward less the SFT model's. ± and bands are 95% intervals."
        )
        notes += fitted
    notes += [f"Not fitted, {reason}: {', '.join(names)}." for reason, names in refused.items()]
    return notes


def _start(found: RowRuns, metric: str) -> float:
    """The gold reward at d = 0: that of the SFT models that the runs started from. NaN where it was not measured."""
    values = [run.record.metrics[metric].value for run in found.sft if metric in run.record.metrics]
    return math.fsum(values) / len(values) if values and len(values) == len(found.runs) else math.nan


def _draw_fit(axes: Axes, found: Fit, end: float, start: float, colour: str) -> None:
    d = np.linspace(0.0, 1.05 * end, 200)
    middle, half = start + found.value(d), found.half_interval(d)
    axes.plot(d, middle, color=colour, linewidth=2, alpha=0.8)
    axes.fill_between(d, middle - half, middle + half, color=colour, alpha=0.12, linewidth=0)
