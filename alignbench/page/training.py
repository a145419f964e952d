"""Runs that a page starts: the ordinary command in a process of its own, with choices that were checked one by one.

They outlive the server: what a page knows of them lies in `<results>/.page/`, and the run's own directory tells the rest."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from alignbench.app.compose import load_config
from alignbench.app.overrides import quoted
from alignbench.errors import AlignbenchError, UserError, unknown_name
from alignbench.page.points import looked_at, points
from alignbench.plugins import Kind, registry
from alignbench.results.disk.directory import RESULT, RunDirectory, file_errors, write_whole
from alignbench.results.disk.record import RunRecord, Status

GROUPS = ("algo", "model", "data", "reward", "annotator", "eval")
"""Settings that are chosen by a name."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")
_NUMBER_KEY = re.compile(r"(seed|(algo|sft|pretrain|data|reward|annotator|rankings|eval|budget)(\.[a-z][a-z0-9_]*)+)\Z")
_ID = re.compile(r"[0-9a-f]{16}\Z")
MOST_AT_ONCE = 4
MOST_SAID = 20
"""Last lines of what the process said that are shown."""
GRACE = 20.0
"""Seconds from being told to stop to being killed."""

Choice = str | int | float | bool | Sequence[str]


@dataclass(frozen=True)
class Training:
    """One process that was started. `name` is the run's directory without its date; `process` and `began` (seconds since 1970)
    name the process, for an id alone is given again."""

    id: str
    title: str
    overrides: tuple[str, ...]
    name: str
    started: float
    process: int
    began: float


@dataclass(frozen=True)
class Progress:
    """How it stands: `starting` until it has a directory, then as its record says. `lines` are those of train.jsonl from the
    asked one on, `next` the number of the one to ask for then; `points` and `next_point` the same of its evaluations along training
    (points.py). `metrics` of a finished run by name."""

    id: str
    title: str
    overrides: tuple[str, ...]
    status: str
    run: str
    lines: tuple[Mapping[str, Any], ...]
    next: int
    said: tuple[str, ...]
    error: str
    metrics: Mapping[str, float | None]
    points: tuple[Mapping[str, Any], ...] = ()
    next_point: int = 0


class Trainings:
    """Starts, watches and stops runs in one results folder."""

    def __init__(self, results: Path) -> None:
        self._results = results.absolute()
        self._folder = self._results / ".page"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def start(
        self, choices: Mapping[str, Choice], *, fixed: Sequence[str] = (), title: str = "", rows: int = 0
    ) -> Training:
        """`choices` may come from a browser; `fixed` are overrides of the page's own; `rows`: how many examples it learns from, where
        that is known. Raises UserError for what cannot be run."""
        overrides = (*fixed, *checked(choices), f"results_dir={quoted(str(self._results))}")
        with self._lock:
            config = load_config(overrides)
            name = RunDirectory.name_of(
                config.algo.label, config.model.label, config.data.label, config.seed, config.hash
            )
            running = [training for training in self._known() if self._alive(training)]
            if same := next((training for training in running if training.name == name), None):
                return same
            if len(running) >= MOST_AT_ONCE:
                raise UserError(f"{len(running)} runs are being trained already: stop one, or wait until one is done.")
            return self._launch(secrets.token_hex(8), title, (*overrides, *looked_at(config, rows)), name)

    def resume(self, name: str) -> Training:
        """The same command again: it goes on with its unfinished run."""
        with self._lock:
            training = self._training(name)
            deadline = time.monotonic() + GRACE
            while self._alive(training):
                _, record = self._run(training)
                if record is None or record.status is Status.RUNNING:
                    return training
                if time.monotonic() > deadline:
                    raise UserError("The process that was stopped has not ended yet: try again in a moment.")
                time.sleep(0.05)  # it has written how it ended, and is leaving
            return self._launch(training.id, training.title, training.overrides, training.name)

    def stop(self, name: str) -> None:
        """As Ctrl-C does: the run is written down as interrupted and can go on later. Killed where it does not end."""
        training = self._training(name)
        process = self._process(training)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        threading.Thread(target=self._kill_later, args=(training, process), daemon=True).start()

    def all(self) -> list[Training]:
        """The latest first."""
        return sorted(self._known(), key=lambda training: -training.started)

    def progress(self, name: str, after: int = 0, point: int = 0) -> Progress:
        """`after`: how many lines of train.jsonl are known already; `point`: how many points."""
        training = self._training(name)
        alive = self._alive(training)  # asked first: what a process wrote before it ended is then there
        directory, record = self._run(training)
        said = self._said(training)
        if record is None:
            status = "starting" if alive else "failed"
        elif record.status is Status.RUNNING and not alive:
            status = Status.INTERRUPTED.value  # killed: nobody wrote how it ended
        else:
            status = record.status.value
        error = (record.error if record else None) or ""
        if status == "failed" and not error:
            error = said[-1] if said else "the process ended before it had a directory"
        found = directory.training() if directory else []
        seen = points(directory.path) if directory else []
        metrics = {
            metric: value.value if math.isfinite(value.value) else None
            for metric, value in (record.metrics if record else {}).items()
        }
        run = directory.run_id if directory else ""
        return Progress(
            training.id, training.title, training.overrides, status, run, _from(after, found), len(found), said, error, metrics,
            _from(point, seen), len(seen),
        )  # fmt: skip

    def _launch(self, name: str, title: str, overrides: tuple[str, ...], run: str) -> Training:
        with file_errors(self._folder, "choose another folder of results"):
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"{name}.log").open("wb") as log:
                started = time.time()
                child = subprocess.Popen(
                    [sys.executable, "-m", "alignbench", *overrides],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            training = Training(name, title, overrides, run, started, child.pid, _began(child.pid))
            try:
                write_whole(self._folder / f"{name}.json", json.dumps(asdict(training)).encode())
            except OSError:  # as where the disk is full: what nobody can watch or stop must not run
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                raise
            self._children[name] = child
        return training

    def _known(self) -> list[Training]:
        found = []
        for path in self._folder.glob("*.json") if self._folder.is_dir() else ():
            try:
                row = json.loads(path.read_text(encoding="utf-8"))
                found.append(Training(**{**row, "overrides": tuple(row["overrides"])}))
            except (OSError, ValueError, TypeError, KeyError):
                continue  # of another version, or not ours
        return found

    def _training(self, name: str) -> Training:
        found = {training.id: training for training in self._known()}
        if not _ID.match(name) or name not in found:
            raise UserError("There is no such training: it was started in another folder of results, or removed.")
        return found[name]

    def _process(self, training: Training) -> psutil.Process | None:
        child = self._children.get(training.id)
        if child is not None and child.poll() is not None:
            return None  # ours and ended, reaped by this
        try:
            process = psutil.Process(training.process)
            same = abs(process.create_time() - training.began) < 2
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def _alive(self, training: Training) -> bool:
        return self._process(training) is not None

    def _kill_later(self, training: Training, process: psutil.Process) -> None:
        deadline = time.monotonic() + GRACE
        while self._alive(training):
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                return
            time.sleep(0.2)

    def _run(self, training: Training) -> tuple[RunDirectory | None, RunRecord | None]:
        """The directory that the process works in: of those with its settings the one whose record was written after it began."""
        for path in sorted(self._results.glob(f"????????-??????-{training.name}*"), reverse=True):
            try:
                if (path / RESULT).stat().st_mtime < training.started - 1:  # another run of the same settings
                    continue
                return RunDirectory(path), RunRecord.from_json((path / RESULT).read_text(encoding="utf-8"))
            except (OSError, AlignbenchError):
                continue
        return None, None

    def _said(self, training: Training) -> tuple[str, ...]:
        try:
            text = (self._folder / f"{training.id}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ()
        # A bar draws over its own line: what stands there last is what a terminal shows.
        shown = [line.rsplit("\r", 1)[-1].rstrip() for line in text[-20_000:].splitlines()]
        return tuple(line for line in shown if line)[-MOST_SAID:]


def _from(known: int, found: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """What comes after those that are known; all of it where a run that goes on has taken some of them back."""
    return tuple(found[known:] if 0 <= known <= len(found) else found)


def checked(choices: Mapping[str, Choice]) -> list[str]:
    """Overrides of the ordinary command. Names are those of components and presets, everything else is a number or a switch:
    no path, no address and no code comes through."""
    return [f"{key}={_checked(key, value)}" for key, value in choices.items()]


def _checked(key: str, value: Choice) -> str:
    if key in GROUPS and isinstance(value, str):
        if not _NAME.match(value):
            raise UserError(f"{key}={value[:40]!a} is no name of a component.")
        return value  # whether it exists, the composition says, and lists the choices
    if key == "eval.families" and not isinstance(value, (str, int, float)):
        known = [component.name for component in registry().of(Kind.EVALUATION)]
        if odd := [str(name) for name in value if name not in known]:
            raise unknown_name("evaluation", odd[0], known, where=key)
        return f"[{','.join(value)}]"
    if not _NUMBER_KEY.match(key):
        raise UserError(f"{key[:60]!a} cannot be set from the page: use the command line.")
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{key} must be a number.")
    return repr(value)


def _began(process: int) -> float:
    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:
        return time.time()
