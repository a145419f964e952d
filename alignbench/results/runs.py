"""Finds and reads run directories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignbench.errors import UserError
from alignbench.results.directory import BASELINE, CONFIG, RESULT, TRAINING
from alignbench.results.record import RunRecord


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


def find_runs(paths: Iterable[Path]) -> tuple[list[StoredRun], list[BrokenRun]]:
    """The runs in `paths`, each a run directory or a folder of them, with the SFT model's row nested in each.

    Raises UserError for a path that does not exist; a directory that cannot be read is returned as broken."""
    runs: list[StoredRun] = []
    broken: list[BrokenRun] = []
    for path in dict.fromkeys(directory for given in paths for directory in _run_directories(given)):
        try:
            runs.append(_read(path))
        except (OSError, UnicodeDecodeError, UserError) as error:
            broken.append(BrokenRun(path, str(error).splitlines()[0]))
    return runs, broken


def _run_directories(path: Path) -> Iterator[Path]:
    try:
        if not path.is_dir():
            raise UserError(f"No folder {path}. Give a run's directory or a folder of runs.")
        for candidate in [path] if _is_run(path) else sorted(p for p in path.iterdir() if p.is_dir() and _is_run(p)):
            yield candidate
            if _is_run(candidate / BASELINE):  # a run that did not get so far has no files there but a model
                yield candidate / BASELINE
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in (RESULT, CONFIG, TRAINING))


def _read(path: Path) -> StoredRun:
    if not (path / RESULT).exists():
        raise UserError(f"no {RESULT}")
    try:
        record = RunRecord.from_json((path / RESULT).read_text(encoding="utf-8"))
    except UserError as error:
        raise UserError(f"{RESULT}: {error}") from error
    return StoredRun(path, record, read_settings(path / CONFIG))


def read_settings(path: Path) -> dict[str, Any]:
    """A resolved configuration with dotted names; empty where there is no file."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where libyaml is there
    if not path.exists():
        return {}
    try:
        return dict(_flatten(yaml.load(path.read_text(encoding="utf-8"), loader)))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{CONFIG} is not YAML") from error


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
