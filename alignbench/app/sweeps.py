"""A sweep: what became of each of its jobs, in whatever process it ran, and one table at the end.

A job may run in another process or on another machine, so it tells its sweep what it did through a small file in the
sweep's folder. Written as the job begins, it also tells of a job that was killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import statistics
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from alignbench.app.telling import about
from alignbench.errors import AlignbenchError
from alignbench.hookspecs import RunFinished, RunStarted, RunStep, hookimpl
from alignbench.plugins import registry
from alignbench.records import Metric
from alignbench.results.disk.record import Status
from alignbench.untrusted import redacted, told

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Report:
    """How a job went. `directory` is its run's, where it came so far; `tuned`: in tuning, what for (see tuning.name); `seconds`: what it
    took, where it trained and ended well."""

    job: int
    overrides: tuple[str, ...]
    status: Status = Status.RUNNING
    directory: str | None = None
    error: str | None = None
    tuned: str | None = None
    seconds: float | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"status": self.status.value})

    @classmethod
    def from_json(cls, text: str) -> Report:
        values = json.loads(text)
        return cls(**values | {"overrides": tuple(values["overrides"]), "status": Status(values["status"])})


@dataclass
class Sweep:
    """`directory` is hydra.sweep.dir, known once Hydra has composed it; the name keeps apart sweeps that share one. `jobs` is how many it has,
    None where its sweeper does not say, and `varied` the keys that it gives several values."""

    name: str = field(default_factory=lambda: f"jobs-{uuid.uuid4().hex[:8]}")
    directory: Path | None = None
    jobs: int | None = None
    varied: tuple[str, ...] = ()

    def reports(self) -> list[Report]:
        """Of the jobs that began, in order."""
        return read_reports(self.directory / self.name) if self.directory else []

    def heading(self, report: Report, reports: Sequence[Report]) -> str:
        """Of a job that begins, among those that began so far: "run 3 of 12, algo=ppo seed=1, about 6 minutes left"."""
        of = f" of {self.jobs}" if self.jobs else ""
        what = " ".join(o for o in report.overrides if o.partition("=")[0] in self.varied)
        left = self.seconds_left(reports)
        parts = (f"run {report.job + 1}{of}", what, f"{about(left)} left" if left else "")
        return ", ".join(part for part in parts if part)

    def seconds_left(self, reports: Sequence[Report]) -> float | None:
        """By the median of the runs that were trained, the first of which may have made what all of them share; those that run share the
        work. None before there is one."""
        took = [report.seconds for report in reports if report.seconds is not None]
        if not took or not self.jobs:
            return None
        running = sum(report.status is Status.RUNNING for report in reports)
        ended = len(reports) - running
        return statistics.median(took) * (self.jobs - ended) / max(running, 1)

    def plan(self, config: DictConfig) -> None:
        """Reads what a sweep will run from the configuration that it starts with."""
        its = config.hydra
        params = its.sweeper.get("params") or {}
        texts = [f"{key}={value}" for key, value in params.items()] + list(its.overrides.task)
        given = {override.get_key_element(): override for override in OverridesParser.create().parse_overrides(texts)}
        swept = {key: override for key, override in given.items() if override.is_sweep_override()}
        counts = {key: _values(override) for key, override in swept.items()}
        self.varied = tuple(key for key, count in counts.items() if count != 1)
        self.jobs = its.sweeper.get("n_trials")
        if self.jobs is None and None not in counts.values():
            self.jobs = math.prod(count for count in counts.values() if count is not None)


def _values(override: Override) -> int | None:
    """How many values a sweep gives an option; None where that is not written down."""
    written = override.is_discrete_sweep() and override.value_type is not ValueType.GLOB_CHOICE_SWEEP
    return len(list(override.sweep_string_iterator())) if written else None


def read_reports(folder: Path) -> list[Report]:
    reports = (Report.from_json(file.read_text(encoding="utf-8")) for file in folder.glob("*.json"))
    return sorted(reports, key=lambda report: report.job)


OPENED: ContextVar[Sweep] = ContextVar("OPENED")
"""The sweep that this process is about to start: Hydra's callbacks are built from YAML and can be handed nothing."""


@contextlib.contextmanager
def opening(sweep: Sweep) -> Iterator[None]:
    """While Hydra runs: where that turns out to be a sweep, it learns its directory."""
    before = OPENED.set(sweep)
    try:
        yield
    finally:
        OPENED.reset(before)


class Opening(Callback):
    """In the process that starts a sweep: notes the sweep's folder, and passes the user's word on threads on whole.

    joblib sets what is unset of OMP_NUM_THREADS, MKL_NUM_THREADS and others to (cores / jobs), and torch goes by MKL's."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if threads := os.environ.get("OMP_NUM_THREADS"):
            os.environ.setdefault("MKL_NUM_THREADS", threads)
        if sweep := OPENED.get(None):
            sweep.directory = Path(config.hydra.sweep.dir).absolute()
            sweep.plan(config)


@dataclass
class Reporter:
    """Keeps a job's report, on disk too. A run tells its directory and its metrics to any plugin that listens."""

    path: Path
    report: Report
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    trained: bool = False

    def note(self, **changes: Any) -> None:
        self.report = dataclasses.replace(self.report, **changes)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(self.report.to_json(), encoding="utf-8")
        temporary.replace(self.path)

    @hookimpl
    def run_started(self, event: RunStarted) -> None:
        self.note(directory=event.directory)

    @hookimpl
    def run_step(self, event: RunStep) -> None:
        self.trained = True  # a run that was finished before takes no time, and tells nothing of the time of others

    @hookimpl
    def run_finished(self, event: RunFinished) -> None:
        self.metrics = event.metrics


@contextlib.contextmanager
def reporting(folder: Path, job: int, overrides: Sequence[str], *, own_process: bool) -> Iterator[Reporter]:
    """Around one job: writes down how it ends, and lets the other jobs go on whatever that is.

    Ctrl-C in the sweep's own process ends the sweep; in a worker, where it is a scheduler's signal, that job alone."""
    folder.mkdir(parents=True, exist_ok=True)
    reporter = Reporter(folder / f"{job}.json", Report(job, tuple(overrides)))
    reporter.note()
    registry().manager.register(reporter)
    start = time.perf_counter()
    try:
        yield reporter
        took = time.perf_counter() - start if reporter.trained else None
        reporter.note(status=Status.FINISHED, seconds=took)
    except AlignbenchError as error:
        print(f"alignbench: error: {told(str(error))}", file=sys.stderr)
        reporter.note(status=Status.FAILED, error=redacted(str(error)))
    except Exception as error:
        print(told(traceback.format_exc()), end="", file=sys.stderr)
        reporter.note(status=Status.FAILED, error=one_line(error))
    except (KeyboardInterrupt, SystemExit) as stop:
        reporter.note(status=Status.INTERRUPTED)
        if own_process or isinstance(stop, SystemExit):
            raise
    finally:
        registry().manager.unregister(reporter)


def one_line(error: BaseException) -> str:
    return " ".join(redacted(f"{type(error).__name__}: {error}").split())


def close(reports: Sequence[Report], console: Console | None = None) -> int:
    """Prints the table of all jobs of a sweep, one for each sort of settings whose numbers can be compared, and a line for each job that left
    no run directory; returns how many failed."""
    from rich.console import Console
    from rich.text import Text

    from alignbench.results.shown.render import print_tables

    console = console or Console()
    here = [report for report in reports if report.directory and Path(report.directory).is_dir()]
    console.print()
    print_tables([Path(report.directory) for report in here if report.directory], console)
    shared = set.intersection(*(set(report.overrides) for report in reports))
    for report in [report for report in reports if report not in here]:
        what = " ".join(override for override in report.overrides if override not in shared)
        killed = " (or killed)" if report.status is Status.RUNNING else ""
        line = f"Not in the table: job {report.job} ({what}): {report.status.value}{killed}"
        line += f", {report.error}" if report.error else ""
        line += f", {report.directory} is not on this machine" if report.directory else ""
        console.print(Text(told(line), style="yellow"))
    return sum(report.status is not Status.FINISHED for report in reports)
