"""What was last read from a folder of runs, kept beside them: to read ten thousand runs again takes a minute.

Only a cache. The run directories are the truth: an index that is absent, damaged or of another version is an empty one,
and an entry counts only while its files are the ones that it was made from.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignbench.results.disk.directory import CONFIG, RESULT, write_whole
from alignbench.results.disk.record import SCHEMA_VERSION, RunRecord

INDEX = ".alignbench-index"
VERSION = f"alignbench index 1, schema {SCHEMA_VERSION}\n".encode()
"""The first number goes up with every change of Index, of Entry or of what counts as a readable run."""
SETTLED_NS = 2_000_000_000

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One run. `config` is the digest of its config.yaml, which its SFT model's row shares."""

    stamp: Stamp
    record: RunRecord
    config: str


@dataclass(frozen=True)
class Index:
    """`entries` by the run's directory within the folder; `settings` by the digest of the config.yaml that holds them."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load(folder: Path) -> Index:
    import msgspec

    try:
        content = (folder / INDEX).read_bytes()
        body = memoryview(content)[len(VERSION) + hashlib.sha256().digest_size :]
        if content[: -len(body)] != VERSION + hashlib.sha256(body).digest():
            return Index()
        index = msgspec.msgpack.decode(body, type=Index)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return Index()
    return index if all(entry.config in index.settings for entry in index.entries.values()) else Index()


def save(folder: Path, index: Index) -> None:
    """Where that is possible: a folder may be read-only, a number too large for 64 bits."""
    import msgspec

    with contextlib.suppress(OSError, msgspec.MsgspecError, OverflowError, RecursionError, UnicodeError):
        body = msgspec.msgpack.encode(index)
        write_whole(folder / INDEX, VERSION + hashlib.sha256(body).digest() + body)


def stamp(directory: str) -> Stamp:
    """Changes with result.json and config.yaml; empty where neither is there.

    mtime can be set back (`cp -p`), ctime cannot; a file that took another's place has another inode. A file written
    just now could change once more within one tick of the file system's clock: its stamp never comes again."""
    files = [_stat(f"{directory}/{name}") for name in (RESULT, CONFIG)]
    if files == [None, None]:
        return ()
    numbers = [n for f in files for n in ((f.st_mtime_ns, f.st_ctime_ns, f.st_size, f.st_ino) if f else (0, 0, 0, 0))]
    newest, now = max(*numbers[:2], *numbers[4:6]), time.time_ns()
    return (*numbers, now) if newest > now - SETTLED_NS else tuple(numbers)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None
