"""Where the stages of a run keep what they make, and tell what they do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from alignbench import distributed
from alignbench.app.config import RunConfig
from alignbench.contracts import Policy, Tracker
from alignbench.pipeline.curves import Curves
from alignbench.pipeline.display import Display
from alignbench.records.stages import StagePlace
from alignbench.results.disk.directory import CHECKPOINTS, RunDirectory
from alignbench.seeds import Seeds
from alignbench.selection import digest
from alignbench.store import keys
from alignbench.store.artifacts import Store, Write, cache_root
from alignbench.store.checkpoints import Checkpoints

T = TypeVar("T")
STAGE, STAGES = "stage.json", "stages"


@dataclass(frozen=True)
class Note:
    """What a stage took, what its line said and what else it found: kept beside what it made, for whoever reuses it."""

    seconds: Mapping[str, float]
    text: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """What a stage has made: `write` puts it into a folder; the rest is for its Note."""

    write: Write
    text: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workbench:
    """What every stage of a run works with."""

    store: Store
    checkpoints: Checkpoints
    display: Display
    curves: Curves
    directory: RunDirectory
    seeds: Seeds
    key: str
    """Names this run's own training: what its checkpoints are kept under."""

    def once(
        self,
        artifact: str,
        key: str,
        *,
        stages: Sequence[str],
        make: Callable[[], Made],
        load: Callable[[Path, Note], T],
    ) -> T:
        """What `load` reads of an artifact that runs share, made by this run or by another. `stages` are those that the display
        times and that have curves of their own; by the last of them the reader knows it."""

        def timed() -> Write:
            made = make()
            seconds = {stage: self.display.seconds[stage] for stage in stages if stage in self.display.seconds}

            def write(folder: Path) -> None:
                made.write(folder)
                note = Note(seconds, made.text, made.figures)
                (folder / STAGE).write_text(json.dumps(asdict(note)), encoding="utf-8")
                self.curves.save(folder, stages)

            return write

        def read(folder: Path, made_by: str) -> T:
            note = Note(**json.loads((folder / STAGE).read_text(encoding="utf-8")))
            found = load(folder, note)
            if made_by:
                self.curves.replay(folder)
                self._reused(stages[-1], note, made_by)
            return found

        return self.store.once(artifact, key, timed, read)

    def own(self) -> Workbench:
        """The same, for what no other run can share: kept beside the checkpoints, for as long as the run is unfinished."""
        root = self.directory.path / CHECKPOINTS / STAGES
        return dataclasses.replace(self, store=dataclasses.replace(self.store, root=root))

    def _reused(self, stage: str, note: Note, made_by: str) -> None:
        """A stage that another run has paid for costs what it cost there: rows of one table stay comparable."""
        self.display.seconds.update(note.seconds)
        if made_by != self.directory.run_id:
            self.display.reused[stage] = made_by
        self.display.say(f"{stage:<12}  reused     {note.text}".rstrip())


def workbench(
    config: RunConfig, directory: RunDirectory, display: Display, tracker: Tracker, device: torch.device
) -> Workbench:
    """Without a cache, a run keeps its finished stages beside its checkpoints, for as long as it is unfinished."""
    unfinished = directory.path / CHECKPOINTS
    chosen = [config.algo, config.sft, config.pretrain, config.model, config.data, config.reward, config.annotator]
    chosen += config.stages_at(
        StagePlace.BEFORE_SFT, StagePlace.AFTER_REWARD
    )  # training does not depend on what comes after it
    key = digest(keys.environment(device), config.hash, config.seed, [part.identity() for part in chosen])
    root = cache_root(config.cache_dir) if config.cache else unfinished / STAGES
    store = Store(root, directory.run_id, display.say)
    if distributed.is_main():
        store.sweep()
    return Workbench(
        store=store,
        checkpoints=Checkpoints(unfinished, key, display.say),
        display=display,
        curves=Curves(directory, tracker, display, config.algo.component.name),
        directory=directory,
        seeds=Seeds(config.seed),
        key=key,
    )


def saved(policy: Policy, directory: RunDirectory) -> Path:
    """The policy's folder in a run's directory, written by the main process and there for all."""
    with directory.writing():
        path = distributed.agreed(lambda: policy.save(directory.path))
    return path
