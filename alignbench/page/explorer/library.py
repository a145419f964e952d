"""The results folder as it was last read, kept in memory, and read anew where it changed.

The first reading of ten thousand runs takes seconds, each look whether they changed a fifth of one: where it takes long, answers do
not wait for it, and the next one has it."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from alignbench.errors import AlignbenchError, UserError
from alignbench.results.compared.table import Table, build_table
from alignbench.results.disk.index import Stamp
from alignbench.results.disk.runs import BrokenRun, StoredRun, parted, runs_in, stamps
from alignbench.results.shown.render import with_warnings

CHECKED_EVERY = 2.0
"""Seconds between looks whether anything changed."""
QUICK = 0.2
"""Seconds that an answer may wait for such a look, or for a reading anew."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Snapshot:
    """All that was found. `by_id`: a run by its directory within the folder, as requests name it: no request's text becomes a path.

    `problem`: why the folder could not be read since, in words; "" where it could."""

    version: int
    read: float
    runs: tuple[StoredRun, ...]
    broken: tuple[BrokenRun, ...]
    by_id: Mapping[str, StoredRun]
    table: Table
    problem: str = ""

    def run(self, name: str) -> StoredRun:
        if name not in self.by_id:
            raise UserError(f"The run {name[:200]} is not in the results folder (any more).")
        return self.by_id[name]


class Library:
    """One folder of runs. `recent` holds what was lately made from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recent = Recent(64)
        self._lock = threading.Lock()
        self._current: Snapshot | None = None
        self._stamps: Mapping[str, Stamp] = {}
        self._checked = self._took = 0.0
        self._looking: threading.Thread | None = None

    def id_of(self, run: StoredRun) -> str:
        """Where it lies within the folder. Text: pathlib takes as long for it as the table takes."""
        path, folder = str(run.path), str(self.folder)
        return path[len(folder) :].replace(os.sep, "/").strip("/") if path.startswith(folder) else path

    def now(self) -> Snapshot:
        """Raises UserError where the folder has never been readable."""
        with self._lock:
            if self._current is None:
                self._look()
            elif time.monotonic() - self._checked > CHECKED_EVERY and not (self._looking and self._looking.is_alive()):
                if self._took <= QUICK:
                    self._look()
                else:
                    self._looking = threading.Thread(target=self._look, daemon=True)
                    self._looking.start()
            assert self._current is not None
            return self._current

    def _look(self) -> None:
        start = time.monotonic()
        before = self._current
        try:
            found = stamps(self.folder)
            if before is None or found != self._stamps:
                self._current = self._read(before, found)
            elif before.problem:
                self._current = replace(before, problem="", version=before.version + 1)
            self._stamps = found
        except AlignbenchError as error:
            if before is None:
                raise
            at = time.strftime("%H:%M:%S", time.localtime(before.read))
            problem = f"{error} What is shown was read at {at}."
            if before.problem != problem:
                self._current = replace(before, problem=problem, version=before.version + 1)
        self._checked = time.monotonic()
        self._took = self._checked - start

    def _read(self, before: Snapshot | None, made: Mapping[str, Stamp]) -> Snapshot:
        """`before` where nothing came of it: a file that was written just now is looked at twice."""
        read = time.time()
        with without_collection():
            found, unread = parted(runs_in(self.folder, made))
            runs, broken = tuple(found), tuple(unread)
            if before and not before.problem and (runs, broken) == (before.runs, before.broken):
                return replace(before, read=read)
            table = with_warnings(build_table(runs, broken))
            by_id = {self.id_of(run): run for run in runs}
            return Snapshot(before.version + 1 if before else 1, read, runs, broken, by_id, table)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Ten thousand runs are a million objects, all in use: looking through them takes a quarter of the time, now and ever after."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


@dataclass
class Recent:
    """The last `size` things that were made, so that they are not made twice."""

    size: int
    _kept: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, make: Callable[[], Found]) -> Found:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast(Found, self._kept[key])
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)
        return made
