"""Over-optimisation along training: proxy and gold reward at each point against sqrt(KL) (Gao et al. 2022, arXiv 2210.10760)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from alignbench.results.compared.overoptimisation import (
    Course,
    Fit,
    Form,
    courses,
    distances,
    fit_points,
    half_intervals,
)
from alignbench.results.compared.table import PROXY, Table
from alignbench.results.compared.training_points import JUDGED
from alignbench.results.shown.plots.style import SOFT, Plot, Style, Styles, label_axis, legend, new_figure
from alignbench.results.shown.plots.text import shown

TITLE = "Over-optimisation along training"
TITLES = {PROXY: "proxy reward: what was optimised", JUDGED: "judge: what nothing was trained on"}
MOST_FITTED = 4
"""Trainings whose curves are drawn: more of them hide each other."""
DRAWN: dict[Form, Any] = {Form.BEST_OF_N: "--", Form.RL: "-"}


def along_training(table: Table, styles: Styles) -> Plot:
    found, problems = courses(table)
    if not found:
        why = "; ".join(problems) or "no run evaluated its policy along training (eval.every)"
        return Plot("overoptimisation", TITLE, f"Left out: {why}.")
    gold_name = next((c.along.gold_name for c in found if c.along.gold is not None), "")
    metrics = [
        m for m, known in ((gold_name, gold_name), (PROXY, any(c.along.proxy is not None for c in found))) if known
    ]
    if not metrics:
        return Plot("overoptimisation", TITLE, "Left out: no run has a gold or a proxy reward along its training.")
    figure = new_figure(4.8 * max(2, len(metrics)), 4.4)
    notes = list(problems)
    for i, metric in enumerate(metrics):
        axes = figure.add_subplot(1, len(metrics), i + 1)
        for course in found:
            _draw(axes, course, styles[course.row], gold=metric != PROXY)
        if metric != PROXY and len(found) <= MOST_FITTED:
            notes += _fits(axes, found, styles)
        axes.set_xlabel("√KL from the SFT model (√ nats per response)")
        label_axis(axes, "y", metric, table)
        axes.set_title(TITLES.get(metric, "gold reward: the truth"))
    extra = [Line2D([], [], color=SOFT, marker="*", linestyle="", markersize=12, label="highest gold reward")]
    if len(found) <= MOST_FITTED:
        extra += [Line2D([], [], color=SOFT, linestyle=line, label=form.value) for form, line in DRAWN.items()]
    legend(figure, list({c.row.label: styles[c.row] for c in found}.values()), extra=extra)
    text = (
        "The policy as it stood every so many updates, on the same prompts with the same chances, one line for each run. Bars are 95% "
        "intervals over questions, training noise left out. Where the proxy goes on rising and the gold reward falls, it is over-optimised."
    )
    return Plot("overoptimisation", TITLE, text, figure, tuple(notes))


def _draw(axes: Axes, course: Course, style: Style, *, gold: bool) -> None:
    along = course.along
    rewards = along.gold if gold else along.proxy
    if rewards is None:
        return
    d, mean, half = distances(along.kl), rewards.mean(1), np.nan_to_num(half_intervals(rewards, along.clusters))
    axes.errorbar(
        d, mean, yerr=half, color=style.colour, marker=style.marker, markersize=5, linestyle=":", linewidth=0.8,
        elinewidth=1, capsize=2, label=style.label,
    )  # fmt: skip
    if gold and course.decline:
        peak = course.decline.peak
        axes.plot(d[peak], mean[peak], marker="*", markersize=15, color=style.colour, linestyle="", label=style.label)


def _fits(axes: Axes, found: list[Course], styles: Styles) -> list[str]:
    """Draws both curves of each training, and says what they are."""
    notes = []
    for course in found:
        along, style = course.along, styles[course.row]
        for form, line in DRAWN.items():
            curve = fit_points(form, along)
            name = shown(f"{style.label}, seed {along.run.record.identity.seed}", limit=100)
            if isinstance(curve, Fit) and along.gold is not None:
                far = distances(along.kl)
                d = np.linspace(far.min(), far.max(), 200)
                middle, half = along.gold[0].mean() + curve.value(d), curve.half_interval(d)
                axes.plot(d, middle, color=style.colour, linestyle=line, linewidth=1.8, alpha=0.7, label=style.label)
                axes.fill_between(
                    d, middle - half, middle + half, color=style.colour, alpha=0.1, linewidth=0, label=style.label
                )
                notes.append(f"{name}: {curve.text()}, residual {curve.residual:.3f}.")
            else:
                notes.append(f"{name}: {form.value} is not fitted, {curve}.")
    return notes
