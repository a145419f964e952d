"""The training state of an unfinished run, so that a killed one goes on from its last update.

One file, written beside its place, flushed and moved there in one step; its name holds the hash of its bytes, so that what
is damaged is never read. It is removed when the run ends well.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alignbench import distributed
from alignbench.results.disk.directory import file_errors, write_whole

_NAME = re.compile(r"(?P<stage>\w+)-(?P<update>\d+)-(?P<digest>[0-9a-f]{16})\.pt")
_PATIENCE = 20  # a checkpoint is due when training has gone on for this many times what the last one took to write

State = Callable[[], Mapping[str, Any]]


class Checkpoints:
    """Keeps the latest state of the stage that is training. States are tensors and plain values: they are read with
    `weights_only=True`. `key` names the code, versions and settings that wrote them: no other state is read."""

    def __init__(self, folder: Path, key: str, say: Callable[[str], None] = lambda text: None) -> None:
        self._folder, self._key, self._say = folder, key, say
        self._written, self._cost = 0.0, 0.0

    def restore(self, stage: str) -> Mapping[str, Any] | None:
        """The latest state of this stage, or None where there is none that is whole."""
        import torch

        for path in self._of(stage):
            content = path.read_bytes()
            if path.name.endswith(f"-{_digest(content)}.pt"):
                saved = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
                if saved["key"] == self._key:
                    state: Mapping[str, Any] = saved["state"]
                    return state
                self._say(f"  {path.name} was written by other code, versions or settings: {stage} starts again")
                continue
            if distributed.is_main():
                path.rename(path.with_suffix(".broken"))
            self._say(f"  {path.name} is damaged; set aside, and {stage} starts again")
        return None

    def keep(self, stage: str, update: int, state: State, *, last: bool = False) -> None:
        """Writes `state()` if it is due, or if it is the stage's last: writing takes at most a twentieth of the time."""
        start = time.perf_counter()
        if not distributed.is_main() or (not last and start - self._written < _PATIENCE * self._cost):
            return
        self._write(stage, update, state())
        self._written = time.perf_counter()
        self._cost = self._written - start

    def _write(self, stage: str, update: int, state: Mapping[str, Any]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save({"key": self._key, "state": dict(state)}, buffer)
        content = buffer.getvalue()
        path = self._folder / f"{stage}-{update}-{_digest(content)}.pt"
        with file_errors(path):
            self._folder.mkdir(exist_ok=True)
            older = [other for other in self._folder.iterdir() if other != path and other.suffix in (".pt", ".tmp")]
            write_whole(path, content)
            for other in older:
                other.unlink(missing_ok=True)

    def _of(self, stage: str) -> list[Path]:
        """Newest first: a run that is killed between writing and tidying up leaves two."""
        if not self._folder.is_dir():
            return []
        named = [(found, path) for path in self._folder.iterdir() if (found := _NAME.fullmatch(path.name))]
        own = [(int(found["update"]), path) for found, path in named if found["stage"] == stage]
        return [path for _, path in sorted(own, reverse=True)]


class NoCheckpoints(Checkpoints):
    """For training that nobody resumes."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), "")

    def restore(self, stage: str) -> None:
        return None

    def keep(self, stage: str, update: int, state: State, *, last: bool = False) -> None:
        pass


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
