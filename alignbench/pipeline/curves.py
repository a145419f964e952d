"""What follows every update of every stage: a line in train.jsonl, the tracker, the hooks, the bar."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alignbench import distributed
from alignbench.app.config import RunConfig
from alignbench.contracts import Tracker
from alignbench.hookspecs import RunStep
from alignbench.pipeline.display import Display
from alignbench.plugins import registry
from alignbench.records import Metric
from alignbench.results.disk.directory import RunDirectory
from alignbench.untrusted import redacted

log = logging.getLogger(__name__)


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


@contextlib.contextmanager
def tracked(config: RunConfig, directory: RunDirectory) -> Iterator[Tracker]:
    """The run's tracker, closed however the run ends. It watches: that it cannot be closed is a warning, and not the run's fate."""
    made = tracker(config, directory)
    try:
        yield made
    finally:
        try:
            made.finish()
        except Exception as error:
            log.warning("The tracker could not be closed: %s", " ".join(redacted(str(error)).split()))


class Curves:
    """What follows every update: a line in train.jsonl, the tracker, the hooks, the bar."""

    def __init__(self, directory: RunDirectory, tracker: Tracker, display: Display) -> None:
        self._directory, self._tracker, self._display = directory, tracker, display
        self._lines = directory.training()  # those of a resumed run
        if self._lines and distributed.is_main():
            directory.rewrite_training(self._lines)  # without a torn end, to which the next line would be glued
        self._reached = {line["stage"]: line["update"] for line in self._lines}

    def step(self, stage: str, update: int, updates: int, metrics: Mapping[str, float]) -> None:
        self._append(stage, update, metrics)
        if distributed.is_main():
            registry().tell(RunStep(str(self._directory.path), stage, update, metrics))
        self._display.step(update, updates, metrics)

    def evaluated(self, metrics: Mapping[str, Metric]) -> None:
        """What the policy as it stands was measured to be, beside the curves of its training."""
        self._tracker.log({f"evaluation/{name}": metric.value for name, metric in metrics.items()}, len(self._lines))

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
        self._tracker.log({f"{stage}/{name}": value for name, value in known.items()}, len(self._lines))
