"""Tuning: the metric that a sweep tunes for, and what it leaves behind: a table of trials and the best settings."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alignbench.app.config import COMPONENT, RunConfig
from alignbench.app.sweeps import Report
from alignbench.errors import UserError, unknown_name
from alignbench.records import Direction, Metric
from alignbench.results.disk.directory import CONFIG
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun, find_runs

KL = ("optimization/kl", "optimization/kl_bound")
"""How far a trial's policy went; of the best of n responses a bound is known."""
GOALS = {Direction.HIGHER: "maximize", Direction.LOWER: "minimize"}
TRIALS = "trials"
FOUND = "found"
"""A config group of one file for each model and algorithm: conf/config.yaml takes from it what --config-dir brings."""


@dataclass(frozen=True)
class Trial:
    """A job of the sweep; `run` and `metric` where it finished."""

    report: Report
    run: StoredRun | None
    metric: Metric | None


def name(config: RunConfig) -> str:
    """Of the file in the config group `found` that a run of this model and this algorithm takes."""
    return f"{config.model.label}-{config.algo.label}"


def check(config: RunConfig, metric: str, direction: Any) -> None:
    """Refuses a metric that cannot be tuned for, before anything is loaded. `direction`: the sweeper's, if it has one."""
    specs = [spec for chosen in config.evaluations for spec in chosen.component.load()(chosen.config).specs()]
    found = next((spec for spec in specs if spec.name == metric), None)
    if found is None:
        raise unknown_name("metric", metric, [spec.name for spec in specs], where="tune.metric")
    if found.direction not in GOALS:
        raise UserError(f"tune.metric={metric} is better neither higher nor lower: choose another metric.")
    if direction and (given := getattr(direction, "name", direction)) != (wanted := GOALS[found.direction]):
        raise UserError(f"tune.metric={metric} wants hydra.sweeper.direction={wanted}, not {given}.")


def value(metrics: Mapping[str, Metric], metric: str) -> float:
    """What a job returns to the sweeper."""
    if metric not in metrics:
        raise UserError(f"tune.metric={metric} does not apply to this run, which measured {', '.join(metrics)}.")
    return metrics[metric].value


def write_results(directory: Path, reports: Sequence[Report]) -> list[Path]:
    """For each model and algorithm: `trials/<name>.csv`, and the best trial's settings as `found/<name>.yaml`, which a
    comparison finds with --config-dir=<directory>. Returns the latter: one less where no trial finished, or none within
    `tune.kl_limit`."""
    runs, _ = find_runs(Path(r.directory) for r in reports if r.directory and r.status is Status.FINISHED)
    found = {str(run.path): run for run in runs}
    trials = [_trial(report, found.get(report.directory or "")) for report in reports]
    written = []
    for name in dict.fromkeys(report.tuned for report in reports if report.tuned):
        _write_trials(directory / TRIALS / f"{name}.csv", [t for t in trials if t.report.tuned in (name, None)])
        if chosen := [trial for trial in trials if trial.report.tuned == name and trial.metric and _near(trial)]:
            written.append(_write_best(directory / FOUND / f"{name}.yaml", chosen))
    return written


def _near(trial: Trial) -> bool:
    """Whether the trial keeps to `tune.kl_limit`. One that measured no KL cannot say so."""
    assert trial.run
    limit = float(trial.run.settings.get("tune.kl_limit") or 0)
    known = [trial.run.record.metrics[name].value for name in KL if name in trial.run.record.metrics]
    return not limit or any(value <= limit for value in known)


def _trial(report: Report, run: StoredRun | None) -> Trial:
    return Trial(report, run, run.record.metrics.get(run.settings["tune.metric"]) if run else None)


def _write_trials(path: Path, trials: Sequence[Trial]) -> None:
    rows = [
        {
            "job": trial.report.job,
            "status": trial.report.status.value,
            "value": trial.metric.value if trial.metric else "",
            "stderr": trial.metric.stderr if trial.metric else "",
            "directory": trial.report.directory or "",
            **dict(override.lstrip("+").partition("=")[::2] for override in trial.report.overrides),
        }
        for trial in trials
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def _write_best(path: Path, trials: Sequence[Trial]) -> Path:
    def goodness(trial: Trial) -> float:
        assert trial.metric
        return trial.metric.value if trial.metric.direction is Direction.HIGHER else -trial.metric.value

    best = max(trials, key=goodness)
    assert best.run and best.metric
    config = OmegaConf.load(best.run.path / CONFIG)
    found = OmegaConf.create({key: config.algo[key] for key in config.algo if key != COMPONENT})
    settings = best.run.settings
    budget = ", ".join(f"{key}={limit}" for key, limit in settings.items() if key.startswith("budget.") and limit)
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = settings.get("tune.kl_limit")
    within = f" within {limit:g} nats of KL" if limit else ""
    what = f"{settings['tune.metric']}={best.metric.value:.4g}, the best of {len(trials)} finished trials{within}"
    path.write_text(
        f"# {what} (seed={settings['seed']}, {budget or 'no budget'}).\n{OmegaConf.to_yaml(found)}", encoding="utf-8"
    )
    return path
