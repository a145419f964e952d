"""A sweep: what became of each of its jobs, in whatever process it ran, and one table at the end.

A job may run in another process or on another machine, so it tells its sweep what it did through a small file in the
sweep's folder. Written as the job begins, it also tells of a job that was killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from alignbench.errors import AlignbenchError
from alignbench.hookspecs import RunFinished, RunStarted, hookimpl
from alignbench.plugins import registry
from alignbench.records import Metric
from alignbench.results.disk.record import Status
from alignbench.untrusted import plain, redacted, told

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Report:
    """How a job went. `directory` is its run's, where it came so far; `tuned`: in tuning, what for (see tuning.name)."""

    job: int
    overrides: tuple[str, ...]
    status: Status = Status.RUNNING
    directory: str | None = None
    error: str | None = None
    tuned: str | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"status": self.status.value})

    @classmethod
    def from_json(cls, text: str) -> Report:
        values = json.loads(text)
        return cls(**values | {"overrides": tuple(values["overrides"]), "status": Status(values["status"])})


@dataclass
class Sweep:
    """`directory` is hydra.sweep.dir, known once Hydra has composed it; the name keeps apart sweeps that share one."""

    name: str = field(default_factory=lambda: f"jobs-{uuid.uuid4().hex[:8]}")
    directory: Path | None = None

    def reports(self) -> list[Report]:
        """Of the jobs that began, in order."""
        files = self.directory.glob(f"{self.name}/*.json") if self.directory else ()
        return sorted((Report.from_json(file.read_text(encoding="utf-8")) for file in files), key=lambda r: r.job)


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


@dataclass
class Reporter:
    """Keeps a job's report, on disk too. A run tells its directory and its metrics to any plugin that listens."""

    path: Path
    report: Report
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def note(self, **changes: Any) -> None:
        self.report = dataclasses.replace(self.report, **changes)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(self.report.to_json(), encoding="utf-8")
        temporary.replace(self.path)

    @hookimpl
    def run_started(self, event: RunStarted) -> None:
        self.note(directory=event.directory)

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
    try:
        yield reporter
        reporter.note(status=Status.FINISHED)
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
    """Prints the table of all jobs of a sweep, and a line for each that left no run directory; returns how many failed."""
    from rich.console import Console
    from rich.text import Text

    from alignbench.results.shown.render import print_table

    console = console or Console()
    here = [report for report in reports if report.directory and Path(report.directory).is_dir()]
    console.print()
    print_table([Path(report.directory) for report in here if report.directory], console)
    shared = set.intersection(*(set(report.overrides) for report in reports))
    for report in [report for report in reports if report not in here]:
        what = " ".join(override for override in report.overrides if override not in shared)
        killed = " (or killed)" if report.status is Status.RUNNING else ""
        line = f"Not in the table: job {report.job} ({what}): {report.status.value}{killed}"
        line += f", {report.error}" if report.error else ""
        line += f", {report.directory} is not on this machine" if report.directory else ""
        console.print(Text(plain(line), style="yellow"))
    return sum(report.status is not Status.FINISHED for report in reports)
