"""Finds and reads run directories."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignbench.errors import UserError
from alignbench.paths import reachable
from alignbench.results.disk.directory import BASELINE, CONFIG, RESULT, TRAINING
from alignbench.results.disk.index import Entry, Index, Stamp, load, save, stamp
from alignbench.results.disk.record import RunRecord

DEFAULT_RESULTS = Path("results/runs")


def locate(name: str, results_dir: Path) -> Path:
    """A path as it stands, or a run's name in the results folder. Raises UserError for an empty one."""
    if not name.strip():
        raise UserError("A run's name or path is empty.")
    # os.path: pathlib raises for a name that no file could have.
    inside = results_dir / name
    return inside if os.path.exists(inside) and not os.path.exists(name) else reachable(name)


def is_run(path: Path) -> bool:
    """Whether there is the record of a run."""
    return os.path.isfile(path / RESULT)


def folders_of_runs(path: Path) -> list[Path]:
    """Those below a folder that hold runs themselves."""
    return sorted({record.parent.parent for record in path.glob(f"*/*/{RESULT}")})


def no_runs(paths: Sequence[Path]) -> UserError:
    """What a command says of folders without a run in them."""
    below = [folder for path in paths for folder in folders_of_runs(path)]
    hint = f"Runs lie in {', '.join(map(str, below[:3]))}{' and others' * (len(below) > 3)}: name one of these folders."
    start = "Start one with `python -m alignbench`, or name the folder of your runs."
    return UserError(f"No runs in {', '.join(map(str, paths))}. {hint if below else start}")


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies on disk. `settings` are its resolved configuration with dotted names: `algo.kl_coef` -> 0.2."""

    path: Path
    record: RunRecord
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BrokenRun:
    """A directory that looks like a run's and cannot be read."""

    path: Path
    reason: str


def read_record(path: Path) -> RunRecord:
    """The record of the run in this directory. Raises UserError where there is none that can be read."""
    try:
        return RunRecord.from_json((path / RESULT).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path / RESULT} cannot be read: {reason(error)}.") from error


def read_config(path: Path) -> str:
    """A run's config.yaml, or another one of its kind. Raises UserError where it cannot be read, or would crash who parses it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}.") from error
    if _depth(text) > _DEEPEST:
        raise UserError(f"{path} cannot be read: it is nested more than {_DEEPEST} levels deep.")
    return text


def reason(error: Exception) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or "it is no file"
    return "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)


_DEEPEST = 100


def _depth(text: str) -> int:
    """At least how deep a YAML text is nested: libyaml's recursion has no limit, and ends the process."""
    deepest = depth = 0
    for sign in re.findall(r"[\[{\]}]", text) if text.count("[") + text.count("{") > _DEEPEST else ():
        depth = depth + 1 if sign in "[{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    columns: list[int] = []  # of what is open: a key, or one of the signs before it; a long line of text opens one
    for line in filter(str.strip, text.splitlines()):
        start = _START.match(line)
        begun = [found.start() for found in re.finditer(r"[-?:]|$", start[0] if start else "")]
        while columns and columns[-1] >= begun[0]:
            columns.pop()
        columns += begun
        deepest = max(deepest, len(columns))
    return deepest


_START = re.compile(r"[ \t]*(?:[-?:][ \t]+)*")


def find_runs(paths: Iterable[Path]) -> tuple[list[StoredRun], list[BrokenRun]]:
    """The runs in `paths`, each a run directory or a folder of them, with the SFT model's row nested in each.

    Raises UserError for a path that does not exist; a directory that cannot be read is returned as broken. Of a
    folder only what changed is read, and remembered in its index."""
    found: dict[Path, StoredRun | BrokenRun] = {}
    for path in paths:
        for run in runs_in(path, stamps(path)):
            found.setdefault(run.path, run)
    return parted(found.values())


def parted(found: Iterable[StoredRun | BrokenRun]) -> tuple[list[StoredRun], list[BrokenRun]]:
    """Those that could be read, and those that could not."""
    runs, broken = [], []
    for run in found:
        if isinstance(run, StoredRun):
            runs.append(run)
        else:
            broken.append(run)
    return runs, broken


def runs_in(path: Path, made: Mapping[str, Stamp]) -> list[StoredRun | BrokenRun]:
    """Those whose `stamps` these are."""
    if "" in made:
        return _read_all(path, made, Index())[0]
    known = load(path)
    runs, index = _read_all(path, made, known)
    if index.entries != known.entries:
        save(path, index)
    return runs


def stamps(path: Path) -> dict[str, Stamp]:
    """The run directories in `path`, relative to it, with the SFT model's behind each; "" where it is a run itself. Raises UserError
    where it cannot be read."""
    try:
        if not path.is_dir():
            raise UserError(f"No folder {path}. Give a run's directory or a folder of runs.")
        return _stamps(path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _stamps(path: Path) -> dict[str, Stamp]:
    """os.listdir and text: pathlib takes longer for this than all the rest of the table."""
    found = {}

    def add(name: str) -> bool:
        directory = os.path.join(path, name)
        if (made := stamp(directory)) or os.path.exists(f"{directory}/{TRAINING}"):
            found[name] = made
        return name in found

    if add(""):
        add(BASELINE)
        return found
    for name in sorted(os.listdir(path)):
        if add(name):
            add(f"{name}/{BASELINE}")  # a run that did not get so far has no files there but a model
    return found


def _read_all(folder: Path, stamps: Mapping[str, Stamp], known: Index) -> tuple[list[StoredRun | BrokenRun], Index]:
    """The runs, those from `known` whose files are still the same, and the index that they make."""
    runs: list[StoredRun | BrokenRun] = []
    entries: dict[str, Entry] = {}
    settings = dict(known.settings)
    for name, made in stamps.items():
        path, entry = folder / name, known.entries.get(name)
        try:
            if entry is None or entry.stamp != made:
                entry = _read(path, made, settings)
        except (OSError, UnicodeDecodeError, UserError) as error:
            runs.append(BrokenRun(path, (str(error).splitlines() or [type(error).__name__])[0]))
            continue
        entries[name] = entry
        runs.append(StoredRun(path, entry.record, settings[entry.config]))
    used = {entry.config for entry in entries.values()}
    return runs, Index(entries, {digest: found for digest, found in settings.items() if digest in used})


def _read(path: Path, made: Stamp, settings: dict[str, Mapping[str, Any]]) -> Entry:
    """Adds to `settings` where no run before had the same configuration."""
    if not (path / RESULT).exists():
        raise UserError(f"no {RESULT}")
    try:
        record = RunRecord.from_json((path / RESULT).read_text(encoding="utf-8"))
    except UserError as error:
        raise UserError(f"{RESULT}: {error}") from error
    config = _config(path / CONFIG)
    digest = hashlib.sha256(config.encode()).hexdigest()
    if digest not in settings:
        settings[digest] = flat_settings(config)
    return Entry(made, record, digest)


def read_settings(path: Path) -> dict[str, Any]:
    """A resolved configuration with dotted names; empty where there is no file."""
    return flat_settings(_config(path))


def _config(path: Path) -> str:
    return read_config(path) if path.exists() else ""


def flat_settings(config: str) -> dict[str, Any]:
    """The settings in the text of a config.yaml, with dotted names."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where libyaml is there
    try:
        flat = dict(_flatten(yaml.load(config, loader)))
        plain: dict[str, Any] = json.loads(json.dumps(flat, default=str))  # what an index can hold, and no more
    except Exception as error:  # PyYAML raises all kinds: ValueError for 2026-02-30, KeyError for `!!bool maybe`
        raise UserError(f"{CONFIG} is not YAML") from error
    return plain


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, value
