"""Rows at a matched KL or a matched compute: each algorithm read off its own frontier, between two settings that were run.

An algorithm's frontier is what it reaches as its coefficients vary. Two algorithms at one coefficient are two points of different
frontiers, at different distances from the SFT model; reward against KL is how they compare (Gao et al. 2022, arXiv
2210.10760). Between the two neighbouring settings of one seed everything is interpolated linearly, the score of each
example too, so that differences are tested as in any other table. Nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignbench.results.compared.examples import Examples, Scores
from alignbench.results.compared.table import Row, Table, make_row, of_fewer_seeds
from alignbench.results.disk.environment import counts
from alignbench.results.disk.record import Cost
from alignbench.results.disk.runs import StoredRun

if TYPE_CHECKING:
    from alignbench.results.compared.examples import Floats

KL = ("optimization/kl", "exact/kl")


@dataclass(frozen=True)
class Axis:
    """What is matched: where a run stands on it, None where that is unknown."""

    name: str
    unit: str
    of: Callable[[StoredRun], float | None]


def _kl(run: StoredRun) -> float | None:
    return next((run.record.metrics[name].value for name in KL if name in run.record.metrics), None)


def _seconds(run: StoredRun) -> float | None:
    return math.fsum(run.record.cost.seconds.values()) or None


AT_KL = Axis("KL", "nats per response", _kl)
AT_BUDGET = Axis("seconds", "of the whole run", _seconds)


@dataclass(frozen=True)
class _Between:
    """A point of a frontier: `weight` of `upper`, the rest of `lower`."""

    lower: StoredRun
    upper: StoredRun
    weight: float


Price = Callable[[str], str | None]
"""The option of an algorithm that is the price of one nat of KL: empty where it has none, None where nobody knows."""


def matched(
    table: Table,
    axis: Axis,
    target: float,
    examples: Examples,
    *,
    mix_code: bool = False,
    price: Price = lambda algo: None,
) -> tuple[Table, Examples]:
    """The table with one row per frontier, read off at `target`, and the scores of its rows. SFT models stay as they are;
    what does not reach the target is said and left out. Runs of different code are one frontier only with `mix_code`.
    A KL that is matched has no scores: rows that have it alike are not compared by it."""
    rows = [row for row in table.rows if row.baseline]
    of_settings = {note for row in table.rows if not row.baseline for note in of_fewer_seeds(row.runs, row.label)}
    notes = [note for note in table.notes if note not in of_settings]
    before = len(notes)
    points: dict[Path, _Between] = {}
    for label, sweep in _frontiers(table, mix_code).items():
        found, missing = [], []
        for seed, runs in _by_seed(sweep).items():
            between = _between(runs, axis, target)
            if isinstance(between, str):
                missing.append(f"seed {seed}: {between}")
                continue
            run = _interpolated(
                between, Path(f"{' '.join(label)} at {axis.name} {target:g}, seed {seed}"), axis, target
            )
            points[run.path] = between
            found.append(run)
        name = " ".join(label)
        if missing:
            sweep_more = _sweep(sweep, target, price) if axis is AT_KL else ""
            notes.append(
                f"{name} at {axis.name} {target:g} is not known and not extrapolated: {'; '.join(missing)}.{sweep_more}"
            )
        if found:
            rows.append(make_row(found, label))
            notes += of_fewer_seeds(found, label)
            settings = ", ".join(" ".join(row.label[len(label) :]) or name for row in sweep)
            notes.append(f"{name} is interpolated at {axis.name} {target:g} ({axis.unit}) over {settings}.")
    if not points:
        lacking = (
            f"Nothing can be compared at {axis.name} {target:g}: no algorithm has runs of one seed on both sides of it."
        )
        notes.insert(before, lacking)
    left_out = KL if axis is AT_KL else ()
    scores = {name: _extended(scores, points) for name, scores in examples.scores.items() if name not in left_out}
    return replace(table, rows=tuple(rows), notes=tuple(notes)), replace(examples, scores=scores)


def _frontiers(table: Table, mix_code: bool) -> dict[tuple[str, ...], list[Row]]:
    """Rows that differ only in options of their algorithm, under the part of the label that they share."""
    sweeps: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in table.rows:
        if not row.baseline:
            identity = row.identity
            settings = row.runs[0].settings.items()
            fixed = [(k, str(v)) for k, v in settings if counts(k) and k.partition(".")[0] not in _VARYING]
            code = "" if mix_code else identity.code
            sweeps[row.label[0], identity.plugin, identity.plugin_version, code, *sorted(fixed)].append(row)
    shared = [_shared(rows) for rows in sweeps.values()]
    found: dict[tuple[str, ...], list[Row]] = {}
    for label, rows in zip(shared, sweeps.values(), strict=True):
        if shared.count(label) > 1:  # by code of one label each: two frontiers
            identity = rows[0].identity
            label = (*label, f"version={identity.plugin_version}", f"code={identity.code[:8]}")
        found[label] = [replace(r, label=(*label, *(p for p in r.label if p not in label))) for r in rows]
    return found


def _shared(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(part for part in rows[0].label if all(part in row.label for row in rows))


_VARYING = ("algo", "seed", "device", "results_dir", "tracker")


def _by_seed(rows: Sequence[Row]) -> Mapping[int, list[StoredRun]]:
    found: dict[int, list[StoredRun]] = defaultdict(list)
    for row in rows:
        for run in row.runs:
            found[run.record.identity.seed].append(run)
    return dict(sorted(found.items()))


def _between(runs: Sequence[StoredRun], axis: Axis, target: float) -> _Between | str:
    """The two neighbours of `target`, or why there are none."""
    known = sorted(((x, run) for run in runs if (x := axis.of(run)) is not None), key=lambda point: point[0])
    if not known:
        return f"no {axis.name}"
    lower = [point for point in known if point[0] <= target]
    upper = [point for point in known if point[0] >= target]
    if not lower or not upper:
        lowest, highest = known[0][0], known[-1][0]
        only = f"{lowest:.3g}" if len(known) == 1 else f"{lowest:.3g} to {highest:.3g}"
        return f"{axis.name} {only}"
    (x, below), (y, above) = lower[-1], upper[0]
    return _Between(below, above, (target - x) / (y - x) if y > x else 0.0)


def _interpolated(point: _Between, name: Path, axis: Axis, target: float) -> StoredRun:
    """A run that was not made: its standard errors over examples are unknown, and of its costs only the seconds are told. What is
    matched is the target itself, without the rounding of a mean."""
    lower, upper = point.lower.record, point.upper.record

    def mix(a: float, b: float) -> float:
        return (1 - point.weight) * a + point.weight * b

    metrics = {
        name: replace(
            m,
            value=mix(m.value, other.value),
            stderr=math.nan,
            n=min(m.n, other.n),
            missing=m.missing + other.missing,
            low=math.nan,
            high=math.nan,
        )
        for name, m in lower.metrics.items()
        if (other := upper.metrics.get(name))
    }
    sides = (lower.unanswered, upper.unanswered)
    unanswered = {name: max(side.get(name, 0) for side in sides) for side in sides for name in side}
    if axis is AT_KL and (matched_name := next((name for name in KL if name in metrics), None)):
        metrics[matched_name] = replace(metrics[matched_name], value=target)
    seconds = mix(math.fsum(lower.cost.seconds.values()), math.fsum(upper.cost.seconds.values()))
    return replace(
        point.lower,
        path=name,
        record=replace(lower, metrics=metrics, unanswered=unanswered, cost=Cost({"all": seconds})),
    )


COEFFICIENTS = ("kl_coef", "beta")
"""Of the KL penalty, as the field calls it, in runs of an algorithm that is not installed: more of it is less KL."""


def _sweep(rows: Sequence[Row], target: float, price: Price) -> str:
    """The command that would reach the target from the side that each seed lacks."""
    if target == 0:  # there is the SFT model, and no algorithm
        return ""
    runs = [run for row in rows for run in row.runs]
    reached: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        if (kl := _kl(run)) is not None:
            reached[run.record.identity.seed].append(kl)
    if not reached:  # as of best-of-n, whose KL nobody knows
        return ""
    option, settings = price(runs[0].record.identity.algo), runs[0].settings
    if option is None:
        option = next((name for name in COEFFICIENTS if settings.get(f"algo.{name}") is not None), "")
    name = f"algo.{option}"
    coefficients = [float(c) for run in runs if (c := run.settings.get(name)) is not None]
    if not coefficients:
        return " None of its options is a price of KL: how long and how fast it learns decides how far it goes."
    below = [seed for seed, kls in reached.items() if max(kls) < target]
    above = [seed for seed, kls in reached.items() if min(kls) > target]
    least, most = min(coefficients), max(coefficients)
    values = [*([least / 10, least / 3] if below and least else []), *(_more(most) if above else [])]
    longer = " Without a penalty more updates or a higher learning rate go farther." if below and not least else ""
    if not values:
        return longer
    seeds = ",".join(map(str, sorted({*above, *(below if least else ())})))
    return (
        f" A sweep that may reach it: `python -m alignbench -m algo={runs[0].record.identity.algo} "
        f"{name}={','.join(f'{v:.2g}' for v in values)} seed={seeds}`, with the settings of these runs.{longer}"
    )


def _more(coefficient: float) -> list[float]:
    return [coefficient * 3, coefficient * 10] if coefficient else [0.05, 0.2]


def _extended(scores: Scores, points: Mapping[Path, _Between]) -> Scores:
    import numpy as np

    rows = dict(scores.rows)
    added: list[Floats] = []
    for path, point in points.items():
        if point.lower.path in scores.rows and point.upper.path in scores.rows:
            lower, upper = (scores.values[scores.rows[run.path]] for run in (point.lower, point.upper))
            rows[path] = len(rows)
            added.append((1 - point.weight) * lower + point.weight * upper)
    return replace(scores, rows=rows, values=np.vstack([scores.values, *added]), mixed=frozenset(points))
