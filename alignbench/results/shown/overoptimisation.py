"""Draws `alignbench compare --overoptimisation`: proxy and gold reward along each training, its peak, and Gao et al.'s curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from alignbench.errors import UserError
from alignbench.results.compared.overoptimisation import (
    Array,
    Course,
    Fit,
    Form,
    courses,
    distances,
    drop,
    fit_points,
    half_intervals,
    p_text,
    with_interval,
)
from alignbench.results.compared.table import Table
from alignbench.results.compared.training_points import JUDGED, Trajectory
from alignbench.results.shown.cells import NOT_APPLICABLE
from alignbench.results.shown.export import json_text
from alignbench.results.shown.grid import Grid, markdown_text
from alignbench.untrusted import plain

HEADER = ("update", "√KL", "proxy reward", "gold reward", "gold less SFT")
LEGEND = (
    "± is half a 95% interval over questions (clustered), training noise left out. All points have the same prompts and chances; "
    "`gold less SFT` is paired by prompt.",
    "d = √KL, R = gold reward less the SFT model's, on the same prompts. Both curves of Gao et al. 2022 are fitted to the points, "
    "weighted by their standard errors; intervals by the jackknife over questions. The paper proposes the first for best-of-n and the "
    "second for RL, and neither for anything else. The residual (root mean square) tells how well a curve describes the points.",
    "p of a fall is corrected for the points that its peak was chosen from (Bonferroni) and for all runs of the table (Holm).",
)


def draw(table: Table, form: str) -> str:
    """As text in one of the formats of `alignbench compare`."""
    found, problems = courses(table)
    if not found:
        why = problems[0] if problems else "no run has points along its training; run with eval.every=10, for one"
        raise UserError(f"--overoptimisation: {why}.")
    if form == "json":
        return json_text({"runs": [_content(course) for course in found], "notes": problems})
    if form not in ("text", "markdown"):
        raise UserError(f"--overoptimisation has no --format {form}: choose text, markdown or json.")
    parts = [(_title(course), Grid(HEADER, [list(_lines(course.along))]), list(findings(course))) for course in found]
    if form == "text":
        return _terminal(parts, problems)
    lines: list[str] = []
    for title, grid, below in parts:
        lines += [
            f"**{markdown_text(title)}**",
            "",
            *grid.markdown(),
            "",
            *(f"- {markdown_text(b)}" for b in below),
            "",
        ]
    lines += [markdown_text(line) for line in (" ".join(LEGEND), *problems)]
    return "\n".join(lines) + "\n"


def _title(course: Course) -> str:
    return f"{' '.join(course.row.label)}, seed {course.along.run.record.identity.seed}"


@dataclass(frozen=True)
class _Column:
    mean: Array
    half: Array

    def text(self, i: int) -> str:
        half = "" if math.isnan(self.half[i]) else f" ±{self.half[i]:.2f}"
        return f"{self.mean[i] + 0.0:.2f}{half}"


def _columns(along: Trajectory) -> list[_Column | None]:
    gained = None if along.gold is None else along.gold - along.gold[0]
    rewards = (along.proxy, along.gold, gained)
    return [None if r is None else _Column(r.mean(1), half_intervals(r, along.clusters)) for r in rewards]


def _lines(along: Trajectory) -> Iterator[list[str]]:
    d, columns = distances(along.kl), _columns(along)
    for i, update in enumerate(along.updates):
        yield [str(update), f"{d[i]:.2f}", *(c.text(i) if c else NOT_APPLICABLE for c in columns)]


def findings(course: Course) -> Iterator[str]:
    """The peak and the two curves, in a line each."""
    along = course.along
    if along.gold is not None and along.gold_name == JUDGED:
        yield f"The gold reward is {JUDGED}, the score of a judge that nothing was trained on."
    if course.decline is None:
        yield "No peak: no gold reward, or too few points or questions."
    else:
        peak, d = course.decline.peak, distances(along.kl)
        where = f"Peak of the gold reward: update {along.updates[peak]}, √KL {d[peak]:.2f}"
        if peak == len(along.updates) - 1:
            yield f"{where}, which is the last point: no over-optimisation is seen."
        else:
            verdict = (
                "OVER-OPTIMISED: training went past its peak"
                if course.decline.significant
                else "it may be noise"
            )  # fmt: skip
            yield f"{where}; since then it fell by {drop(course.decline)} ({p_text(course.decline.p_value)}): {verdict}."
    for form in Form:
        found = fit_points(form, along)
        yield f"{form.value}: not fitted, {found}." if isinstance(found, str) else told(found, distances(along.kl))


def told(found: Fit, d: Array) -> str:
    """A fitted curve, and where its peak lies among points at these distances."""
    peak, turn = found.peak(), found.level()
    nearest, farthest = d[d > 0].min(), d.max()
    if found.beta < 0:  # a lowest point in place of a peak
        between = f"falls up to d = {turn:.2f} and rises again" if turn < farthest else "falls over all of the points"
        top = f"it {between if turn > nearest else 'rises over all of the points'}: no peak"
    elif peak <= nearest:
        top = "it falls over all of the points after the first" if peak else "it falls from the start"
    elif peak > farthest:
        top = "its peak is beyond the points"
    else:
        height = with_interval(float(found.value(_at(peak))[0]), float(found.half_interval(_at(peak))[0]))
        top = f"its peak is R = {height} at d = {peak:.2f}"
    return f"{found.text()}; residual {found.residual:.3f}; {top}."


def _at(d: float) -> Array:
    return np.array([d])


def _content(course: Course) -> dict[str, Any]:
    along, columns = course.along, _columns(course.along)
    fits = {form.name.lower(): fit_points(form, along) for form in Form}
    names = ("proxy_reward", "gold_reward", "gold_gained")
    return {
        "row": list(course.row.label),
        "seed": along.run.record.identity.seed,
        "update": list(along.updates),
        "sqrt_kl": distances(along.kl).tolist(),
        **{n: c and {"value": c.mean.tolist(), "half_interval_95": c.half.tolist()} for n, c in zip(names, columns, strict=True)},
        "peak": course.decline and {
            "update": along.updates[course.decline.peak], "fall": course.decline.fall.value,
            "p_value": course.decline.p_value, "over_optimised": course.decline.significant,
        },
        "fits": {n: f if isinstance(f, str) else {
            "alpha": f.alpha, "beta": f.beta, "covariance": f.covariance.tolist(), "t": f.t, "residual": f.residual, "peak": f.peak(),
        } for n, f in fits.items()},
    }  # fmt: skip


def _terminal(parts: Sequence[tuple[str, Grid, list[str]]], problems: Sequence[str]) -> str:
    console = Console()
    with console.capture() as capture:
        for title, grid, below in parts:
            drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
            for name in grid.header:
                drawn.add_column(name, justify="right")
            for line in grid.sections[0]:
                drawn.add_row(*map(plain, line))
            console.print(
                Text(plain(title), style="bold"), drawn, *(Text(plain(b), style="yellow") for b in below), "", sep="\n"
            )
        for text in (*LEGEND, *problems):
            console.print(Text(plain(text), style="dim"))
    return capture.get()
