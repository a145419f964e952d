"""What may give other numbers than a finished run of the same settings has: then it is not kept, and says why."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import math
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignbench.app.config import RunConfig
from alignbench.errors import UserError
from alignbench.results.disk.directory import CONFIG, RunDirectory
from alignbench.results.disk.environment import PACKAGES, counts, package_versions
from alignbench.results.disk.record import RunRecord
from alignbench.results.disk.runs import flat_settings, read_settings
from alignbench.store import keys

_WRITTEN = ("results_dir", "cache_dir")
"""Options that name folders which runs write into."""
_PATHS = ("path", "model", "rubric", "template")
_TARGET = re.compile(r"([A-Za-z_]\w*)[\w.]*:[A-Za-z_]\w*")
_MOST_FILES = 10_000
_MOST_BYTES = 2**30
"""More than that is not read a second time to know it again: its times decide."""
DAMAGED = f"its {CONFIG} has been damaged since"


def since(config: RunConfig, directory: RunDirectory, record: RunRecord) -> str:
    """Why a new run would not be this one again, in a few words; empty where nothing tells so."""
    if record.identity.code != keys.of_code(config):
        return "by other code"
    was, now = record.identity.packages, package_versions()
    decide = {*keys.DECIDING, *PACKAGES}  # plugins' own sources are in the code
    if odd := sorted(name for name in decide if was.get(name) != now.get(name)):
        return f"with {odd[0]} {was.get(odd[0])}, now {now.get(odd[0])}"
    return _of_settings(config, directory) or of_files(directory)


def _of_settings(config: RunConfig, directory: RunDirectory) -> str:
    """Its config.yaml says what its table, its report and `resume` tell of it: cut short, it may still be YAML."""
    with contextlib.suppress(UserError):
        written, meant = read_settings(directory.path / CONFIG), flat_settings(config.yaml)
        if {k: v for k, v in written.items() if counts(k)} == {k: v for k, v in meant.items() if counts(k)}:
            return ""
    return DAMAGED


def of_files(directory: RunDirectory, *, unsure: bool = True) -> str:
    """Which file or folder that a run's settings name has changed since it began; empty where none has. One that was written anew and
    has the same content (copied to this machine once more, say) has not. `unsure`: a folder of too many files to look at counts as changed."""
    begun = _begun(directory)
    try:
        settings = read_settings(directory.path / CONFIG)
    except UserError:
        return DAMAGED
    known = directory.inputs()
    for named, path in _named(settings):
        newest = _newest(path)
        if math.isinf(newest) and unsure:
            return f"{named} has too many files to see whether one has changed since"
        later = math.isfinite(newest) and newest >= begun + 1  # the name of a directory has whole seconds
        if later and (named not in known or known[named] != _content(path)):
            return f"{named} has changed since"
    return ""


def inputs(config: RunConfig) -> dict[str, str]:
    """A digest of each file or folder that the settings name, by its option and value: what `of_files` knows it by once its times are others."""
    contents = {named: _content(path) for named, path in _named(flat_settings(config.yaml))}
    return {named: content for named, content in contents.items() if content}


def _begun(directory: RunDirectory) -> float:
    """When the run began, by the name of its directory: its files' own times are those of a copy where it was copied."""
    try:
        return datetime.strptime(directory.path.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return (directory.path / CONFIG).stat().st_mtime


def _named(settings: Any) -> Iterator[tuple[str, Path]]:
    """Every file and folder that settings name, with the option and its value as a user would write them."""
    for name, value in _texts(settings):
        option = name.rpartition(".")[2]
        if path := None if option in _WRITTEN else _file(option, value):
            yield f"{name}={value}", path


def _texts(settings: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in resolved settings, with the dotted name that it stands under."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from _texts(value, f"{name}.{key}" if name else str(key))
    elif isinstance(settings, list):
        for value in settings:
            yield from _texts(value, name)
    elif isinstance(settings, str):
        yield name, settings


def _file(option: str, value: str) -> Path | None:
    """The file or folder that a setting names, or that the function which it names is written in."""
    if not value.strip():
        return None
    with contextlib.suppress(OSError, ValueError, RuntimeError, ImportError):
        if found := _TARGET.fullmatch(value):
            spec = importlib.util.find_spec(found[1])  # of the package at the top: nothing is imported
            if spec and spec.submodule_search_locations:
                return Path(next(iter(spec.submodule_search_locations)))
            return Path(spec.origin) if spec and spec.origin and os.path.exists(spec.origin) else None
        path = Path(value).expanduser()
        if (os.sep in value or "." in value or any(part in option for part in _PATHS)) and path.exists():
            return path
    return None


def _parts(path: Path) -> list[Path]:
    """This and all in it but what Python writes there; of too many one more than that."""
    inside = path.rglob("*") if path.is_dir() else ()
    ours = (each for each in itertools.chain([path], inside) if "__pycache__" not in each.parts)
    return list(itertools.islice(ours, _MOST_FILES + 1))


def _newest(path: Path) -> float:
    """When this, or anything in it, was last written or put there; for ever now where there is too much to look at."""
    parts = _parts(path)
    found = math.inf if len(parts) > _MOST_FILES else 0.0
    for each in parts:
        with contextlib.suppress(OSError):
            for stat in (each.stat(), each.lstat()):  # a link may be pointed elsewhere
                found = max(found, stat.st_mtime, stat.st_ctime)
    return found


def _content(path: Path) -> str:
    """A digest of the names and bytes of all files here; empty where they are too many or too large, cannot be read, or lie behind a
    link to a folder, which is not followed."""
    parts, found = _parts(path), hashlib.sha256()
    try:
        if any(each.is_symlink() and each.is_dir() for each in parts[1:]):
            return ""
        files = sorted((each.relative_to(path).as_posix(), each) for each in parts if each.is_file())
        if len(parts) > _MOST_FILES or sum(file.stat().st_size for _, file in files) > _MOST_BYTES:
            return ""
        for name, file in files:
            with file.open("rb") as content:
                found.update(f"{len(name)} {name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    except OSError:
        return ""
    return found.hexdigest()
