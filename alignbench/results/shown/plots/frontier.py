"""The KL-gold frontier: what an optimised proxy gives in truth, against how far the policy went (Gao et al. 2022, arXiv
2210.10760)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from alignbench.results.compared.overoptimisation import Fit, Form, fit
from alignbench.results.compared.table import PROXY, Cell, Row, Table, baseline_row
from alignbench.results.shown.cells import both_sides
from alignbench.results.shown.plots.data import Best, Curve, best
from alignbench.results.shown.plots.scatter import GOLD, INTERVALS, Point, draw_points
from alignbench.results.shown.plots.style import INK, SOFT, Plot, Style, Styles, label_axis, legend, new_figure
from alignbench.results.shown.plots.text import metric_name, shown

KL, BOUND = "optimization/kl", "optimization/kl_bound"
TITLE = "KL-gold frontier"
PATH_POINTS = 40
FITTED = (
    "The thick curves are those of Gao et al. 2022, fitted by least squares to the rows of one algorithm: d = √KL, R the gold "
    "reward less the SFT model's. ± and bands are 95% intervals."
)


BEST = (
    "Dashed: the policies of the greatest proxy reward at each KL, which no training can exceed, estimated from samples of the SFT "
    "model as far as these tell; one curve for each SFT model and reward. Its gold reward is what those policies give in truth."
)


def frontier(table: Table, curves: Mapping[tuple[str, ...], Mapping[str, Curve]], styles: Styles) -> Plot:
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
    figure = new_figure(4.8 * max(2, len(panels)), 4.4)
    notes: list[str] = []
    fitted: list[str] = []
    paths = limits = False
    for i, metric in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        logged = "reward" if metric == PROXY else "gold_reward"
        drawn = [_path(axes, curves.get(row.label, {}), logged, styles[row]) for row in table.rows]
        paths = paths or any(drawn)
        if metric != PROXY:
            fitted, refused = _fits(axes, table, styles, metric)
            notes = [*([FITTED] if fitted else []), *fitted, *refused]
        reached = best([run for row in table.rows for run in row.runs], "proxy" if metric == PROXY else "gold")
        limits = limits or bool(reached)
        _draw_best(axes, reached)
        draw_points(axes, [_point(row, metric, styles) for row in placed[metric]])
        axes.set_xlabel("√KL from the SFT model (√ nats per response)")
        label_axis(axes, "y", metric, table)
        axes.set_title("gold reward: the truth" if metric != PROXY else "proxy reward: what was optimised")
    rows = [row for row in table.rows if any(row in placed[metric] for metric in panels)]
    widths = {"along training, on training prompts": 0.8 if paths else 0, "fit (Gao et al.)": 2 if fitted else 0}
    extra = [Line2D([], [], color=SOFT, linewidth=width, label=name) for name, width in widths.items() if width]
    if limits:
        extra.append(Line2D([], [], color=INK, linestyle="--", label="best proxy of any policy"))
        notes.append(BEST)
    legend(figure, [styles[row] for row in rows], extra=extra)
    text = (
        f"Each point is a row of the table, placed by the square root of its KL. {INTERVALS} "
        "A proxy that rises while the gold reward falls is over-optimised."
    )
    if any(BOUND in row.cells for row in rows):
        notes.append("The best of n responses are placed at the known upper bound of their KL.")
    if len({(row.identity.annotator, row.identity.reward) for row in rows if row.identity.reward}) > 1:
        notes.append("The rows have different annotators or reward models: their proxy rewards are not on one scale.")
    notes += [f"{line[:1].upper()}{line[1:]}." for line in absent]
    notes += [line for metric in panels for line in _lacking(metric, table, styles)]
    return Plot("frontier", TITLE, text, figure, tuple(notes))


def _lacking(metric: str, table: Table, styles: Styles) -> list[str]:
    """The rows that are not in a panel, and why."""
    without: dict[str, list[str]] = defaultdict(list)
    for row in table.rows:
        if not _kl(row):
            without["no KL was measured"].append(styles[row].label)
        elif metric not in row.cells:
            no_reward = metric == PROXY and not row.identity.reward
            why = "the run has no reward" if no_reward else f"no {metric_name(metric)} was measured"
            without[why].append(styles[row].label)
    return [f"Not in the panel of {metric_name(metric)}, {why}: {', '.join(names)}." for why, names in without.items()]


def _draw_best(axes: Axes, reached: Sequence[Best]) -> None:
    for curve in reached:
        d = np.sqrt(np.maximum(curve.kl, 0.0))
        axes.plot(d, curve.mean, color=INK, linewidth=1.2, linestyle="--")
        axes.fill_between(d, curve.low, curve.high, color=INK, alpha=0.08, linewidth=0)


def _kl(row: Row) -> Cell | None:
    return row.cells.get(KL) or row.cells.get(BOUND)


def _distance(row: Row) -> float:
    """sqrt(KL). An estimated KL near zero may be negative."""
    cell = _kl(row)
    return math.sqrt(max(cell.value, 0.0)) if cell else math.nan


def _point(row: Row, metric: str, styles: Styles) -> Point:
    kl, d = row.cells.get(KL) or row.cells[BOUND], _distance(row)
    ends = [math.sqrt(max(end, 0.0)) for end in (kl.low, kl.high)]
    return Point(styles[row], d, row.cells[metric].value, (d - ends[0], ends[1] - d), both_sides(row, metric))


def _path(axes: Axes, curves: Mapping[str, Curve], figure: str, style: Style) -> bool:
    """The way that training took, where it logged both; returns whether it did."""
    known = "kl" in curves and figure in curves and len(curves["kl"].updates) == len(curves[figure].updates)
    if known:
        kl, reward = (curves[name].thinned(PATH_POINTS).mean for name in ("kl", figure))
        axes.plot(np.sqrt(np.maximum(kl, 0.0)), reward, color=style.colour, linewidth=0.8, alpha=0.6, label=style.label)
    return known


def _fits(axes: Axes, table: Table, styles: Styles, metric: str) -> tuple[list[str], list[str]]:
    """Draws a curve for each algorithm and proxy with enough rows; returns what was fitted, and what was not and why."""
    sweeps: dict[tuple[str | None, ...], list[Row]] = defaultdict(list)
    for row in table.rows:
        if not row.baseline and _kl(row) and metric in row.cells:
            sweeps[row.label[0], row.identity.annotator, row.identity.reward].append(row)
    several = len({key[1:] for key in sweeps}) > 1
    fitted, refused = [], defaultdict[str, list[str]](list)
    for (algorithm, *proxy), rows in sweeps.items():
        name = shown(" ".join([str(algorithm), *(str(part) for part in proxy if part and several)]), limit=60)
        form = Form.BEST_OF_N if all(BOUND in row.cells for row in rows) else Form.RL
        points = [(_distance(row), row.cells[metric].value, _start(row, table, metric)) for row in rows]
        curve = fit(form, [d for d, _, _ in points], [gold - start for _, gold, start in points])
        if isinstance(curve, Fit):
            start = math.fsum(start for _, _, start in points) / len(points)
            _draw_fit(axes, curve, [d for d, _, _ in points], start, styles[rows[0]].colour)
            fitted.append(f"{name}: {curve.text()}, {len(points)} rows.")
        else:
            refused[curve].append(name)
    return fitted, [f"Not fitted, {reason}: {', '.join(names)}." for reason, names in refused.items()]


def _start(row: Row, table: Table, metric: str) -> float:
    """The gold reward at d = 0: the SFT model's, over the seeds of the row. NaN where it was not measured."""
    sft = baseline_row(row, table)
    measured = [run.record for run in (sft.runs if sft else ()) if metric in run.record.metrics]
    by_seed = {record.identity.seed: record.metrics[metric].value for record in measured}
    return math.fsum(by_seed.get(seed, math.nan) for seed in row.seeds) / len(row.seeds)


def _draw_fit(axes: Axes, found: Fit, points: Sequence[float], start: float, colour: str) -> None:
    """From the first point to the last: beyond them the curve is a guess."""
    d = np.linspace(min(points), max(points), 200)
    middle, half = start + found.value(d), found.half_interval(d)
    axes.plot(d, middle, color=colour, linewidth=2, alpha=0.8)
    axes.fill_between(d, middle - half, middle + half, color=colour, alpha=0.12, linewidth=0)
