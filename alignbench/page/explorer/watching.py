"""Runs one by one: how their training goes or went, and what differs between their configurations."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from alignbench.errors import UserError
from alignbench.page.explorer.figures import curves
from alignbench.results.compared.table import Table, make_row
from alignbench.results.disk.directory import TRAINING
from alignbench.results.disk.record import RunRecord, Status
from alignbench.results.disk.runs import StoredRun
from alignbench.results.shown.plots.data import json_lines, training
from alignbench.results.shown.report import setting_text

MOST_RUNS = 8
SILENT = 120
"""Seconds without a word after which a run that is called running may have been killed."""


def watch(runs: Mapping[str, StoredRun], labels: Mapping[str, str], stage: str) -> dict[str, Any]:
    """The curves of `stage`, and how each run stands. Without a stage: of the algorithm's own, each its own, or where none has begun
    yet, of the last that has. `labels`: what a finished run is called in the table."""
    _few(runs)
    stages = {name: _stages(run) for name, run in runs.items()}
    known = list(dict.fromkeys(stage for found in stages.values() for stage in found))
    own = any(run.record.identity.algo in known for run in runs.values())
    chosen = stage if stage in known else "" if own or not known else known[-1]
    rows = [make_row([run], (labels.get(name, name),)) for name, run in runs.items()]
    return {
        "stages": known,
        "stage": chosen,
        "runs": [{"label": labels.get(name, ""), **_standing(name, run, stages[name])} for name, run in runs.items()],
        "plot": curves(Table(tuple(rows), {}), {row.label: training(row.runs, chosen) for row in rows}),
    }


def _stages(run: StoredRun) -> dict[str, int]:
    """Stage -> its last update, in the order in which they began."""
    found: dict[str, int] = {}
    for line in json_lines(run.path / TRAINING):
        stage, update = line.get("stage"), line.get("update")
        if isinstance(stage, str) and isinstance(update, int):
            found[stage] = update
    return found


def _standing(name: str, run: StoredRun, stages: Mapping[str, int]) -> dict[str, Any]:
    record = run.record
    words = record.status.value
    if stages:
        last = list(stages)[-1]
        words += f", {last} update {stages[last]}"
    if record.status is Status.RUNNING and (silent := _silence(run)) > SILENT:
        words += (
            f"; nothing new for {silent / 60:.0f} minutes: if it was killed, `alignbench resume {name}` goes on with it"
        )
    if record.error:
        words += f": {record.error}"
    return {"id": name, "status": record.status.value, "words": words}


def _silence(run: StoredRun) -> float:
    """Seconds since the last word."""
    try:
        return max(0.0, time.time() - (run.path / TRAINING).stat().st_mtime)
    except OSError:
        return 0.0


def compare_settings(runs: Mapping[str, StoredRun]) -> dict[str, Any]:
    """What is not the same in all of `runs`: settings, versions, and where they ran. None where a run does not have it."""
    _few(runs)
    facts: dict[str, dict[str, Mapping[str, Any]]] = {
        "Settings": {name: run.settings for name, run in runs.items()},
        "Versions": {name: _versions(run.record) for name, run in runs.items()},
        "Machine": {name: run.record.identity.hardware for name, run in runs.items()},
        "Seconds": {name: {k: f"{v:.1f}" for k, v in run.record.cost.seconds.items()} for name, run in runs.items()},
        "Rows of data": {name: run.record.counts for name, run in runs.items()},
    }
    groups = [_group(title, by_run) for title, by_run in facts.items() if any(by_run.values())]
    return {"runs": list(runs), "groups": groups}


def _group(title: str, by_run: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[str | None]] = defaultdict(list)
    for key in dict.fromkeys(key for found in by_run.values() for key in found):
        values[key] = [setting_text(found[key]) if key in found else None for found in by_run.values()]
    differing = {key: found for key, found in values.items() if len(set(found)) > 1}
    same = {key: found[0] for key, found in values.items() if key not in differing}
    return {"title": title, "differing": list(differing.items()), "same": list(same.items())}


def _versions(record: RunRecord) -> dict[str, str]:
    identity = record.identity
    return {
        "git commit": identity.git_commit or "none",
        "plugin": f"{identity.plugin} {identity.plugin_version}",
        **identity.packages,
    }


def _few(runs: Mapping[str, StoredRun]) -> None:
    if not 1 <= len(runs) <= MOST_RUNS:
        raise UserError(f"{len(runs)} runs are chosen: choose 1 to {MOST_RUNS}.")
