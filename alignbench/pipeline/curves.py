"""What follows every update of every stage: a line in train.jsonl, the tracker, the hooks, the bar."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alignbench import distributed
from alignbench.app.config import RunConfig
from alignbench.contracts import Tracker
from alignbench.hookspecs import RunStep
from alignbench.pipeline.display import Display
from alignbench.pipeline.experience import Batch
from alignbench.plugins import registry
from alignbench.records import Generation, Metric, UpdateReport
from alignbench.results.disk.directory import RunDirectory
from alignbench.untrusted import redacted

log = logging.getLogger(__name__)
TRAIN = "train"
"""What a tracker calls the algorithm's own stage, whichever algorithm it is: charts of different ones are one chart."""
READ = 16
"""Responses that a tracker is sent of an evaluation."""


class _NoTracker(Tracker):
    """Of the processes that do not write."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


def tracker(config: RunConfig, directory: RunDirectory) -> Tracker:
    if not distributed.is_main():
        return _NoTracker()
    settings = OmegaConf.to_container(OmegaConf.create(config.yaml))
    chosen = config.tracker
    made: Tracker = chosen.component.load()(
        chosen.config, directory=directory.path, run_name=directory.run_id, settings=settings
    )
    return made


class _Watching(Tracker):
    """A tracker watches: what it cannot do is a warning, the first time in a run, and not the run's fate."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._warned: set[str] = set()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        with self._warning("log"):
            self._tracker.log(metrics, step)

    def responses(self, generations: Sequence[Generation], step: int) -> None:
        with self._warning("log"):
            self._tracker.responses(generations, step)

    def finish(self) -> None:
        with self._warning("be closed"):
            self._tracker.finish()

    @contextlib.contextmanager
    def _warning(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each package has errors of its own: no network, no space
            if what not in self._warned:
                self._warned.add(what)
                log.warning("The tracker could not %s: %s", what, " ".join(redacted(str(error)).split()))


@contextlib.contextmanager
def tracked(config: RunConfig, directory: RunDirectory) -> Iterator[Tracker]:
    """The run's tracker, closed however the run ends."""
    made = _Watching(tracker(config, directory))
    try:
        yield made
    finally:
        made.finish()


class Curves:
    """What follows every update: a line in train.jsonl, the tracker, the hooks, the bar. `algorithm`: the stage that trackers call TRAIN."""

    def __init__(self, directory: RunDirectory, tracker: Tracker, display: Display, algorithm: str = "") -> None:
        self._directory, self._tracker, self._display, self._algorithm = directory, tracker, display, algorithm
        self._last: float | None = None
        self._lines = directory.training()  # those of a resumed run
        if self._lines and distributed.is_main():
            directory.rewrite_training(self._lines)  # without a torn end, to which the next line would be glued
        self._reached = {line["stage"]: line["update"] for line in self._lines}

    def step(
        self,
        stage: str,
        update: int,
        updates: int,
        metrics: Mapping[str, float],
        batch: Batch | None = None,
        report: UpdateReport | None = None,
    ) -> None:
        self._append(stage, update, metrics)
        now = time.perf_counter()
        if stage == self._algorithm:
            if self._last:
                self._tracker.log({"time/update": now - self._last}, update)
            self._last = now
        if distributed.is_main():
            registry().tell(RunStep(str(self._directory.path), stage, update, metrics, batch, report))
        self._display.step(update, updates, metrics)

    def evaluated(self, metrics: Mapping[str, Metric], generations: Sequence[Generation], update: int) -> None:
        """What the policy was measured to be after an update, and what it said, beside the curves of its training."""
        self._tracker.log({f"eval/{name}": metric.value for name, metric in metrics.items()}, update)
        first = [generation for generation in generations if generation.index == 0]
        self._tracker.responses(first[:READ], update)
        self._last = time.perf_counter()  # it was no part of the next update

    def ended(self, update: int, tokens_per_second: float | None) -> None:
        """What the run has cost, once its last update and its evaluation are over."""
        seconds = {f"time/{stage.replace(' ', '_')}": took for stage, took in self._display.seconds.items()}
        speed = {} if tokens_per_second is None else {"time/tokens_per_second": tokens_per_second}
        self._tracker.log({**seconds, **speed}, update)

    def save(self, folder: Path, stages: Sequence[str]) -> None:
        """The lines of these stages, beside what the stages made."""
        RunDirectory(folder).rewrite_training(line for line in self._lines if line["stage"] in stages)

    def replay(self, folder: Path) -> None:
        """The lines of stages that another run has made, unless they are here already."""
        lines = RunDirectory(folder).training()
        if [line for line in self._lines if line["stage"] in {line["stage"] for line in lines}] != lines:
            for line in lines:
                metrics = {name: value for name, value in line.items() if name not in ("stage", "update")}
                self._append(line["stage"], line["update"], metrics)

    def _append(self, stage: str, update: int, metrics: Mapping[str, Any]) -> None:
        """A resumed run repeats what came after its checkpoint: those lines make place."""
        if update <= self._reached.get(stage, 0):
            self._lines = [line for line in self._lines if line["stage"] != stage or line["update"] < update]
            self._directory.rewrite_training(self._lines)
        self._reached[stage] = update
        self._lines.append(self._directory.append_training(stage, update, metrics))
        known = {name: value for name, value in metrics.items() if value is not None}
        group = TRAIN if stage == self._algorithm else stage
        self._tracker.log({f"{group}/{name}": value for name, value in known.items()}, update)
