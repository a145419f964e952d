"""What a results folder has to simulate with: SFT models, and the runs that started from each."""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from alignbench.errors import UserError
from alignbench.results.disk.directory import BASELINE
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun, find_runs

WEIGHTS = ("adapter", "model")
MOST_RUNS = 300
"""The latest that are looked at: the weights of each are read once."""


@dataclass(frozen=True)
class Start:
    """One SFT model, named by its weights, and the finished runs that it is the start of, the latest first."""

    key: str
    runs: tuple[StoredRun, ...]

    @property
    def label(self) -> str:
        who = self.runs[0].record.identity
        return f"{who.model} on {who.data}, seed {who.seed}"


def starts(results: Path) -> list[Start]:
    """Those with a run of which everything is there; the one that most runs started from first."""
    if not results.is_dir():
        return []
    runs = [r for r in find_runs([results])[0] if r.record.status is Status.FINISHED and not r.record.baseline]
    found: dict[str, list[StoredRun]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.path.name, reverse=True)[:MOST_RUNS]:
        if key := _digest(run.path / BASELINE):
            found[key].append(run)
    ordered = [Start(key, tuple(own)) for key, own in found.items()]
    return sorted(ordered, key=lambda start: (-len(start.runs), start.key))


def chosen(results: Path, key: str = "") -> Start:
    """The one of that key, or the first. Raises UserError where there is none."""
    known = starts(results)
    if not known:
        raise UserError(
            f"{results} has no finished run to simulate with. Train one first (two minutes): "
            f"python -m alignbench results_dir={results}"
        )
    if not key:
        return known[0]
    for start in known:
        if start.key == key:
            return start
    raise UserError("That SFT model is no longer in the results folder: load the page again.")


def _digest(folder: Path) -> str:
    """Of the weights, wherever they lie in the folder of an SFT model; empty where there are none."""
    files = [path for name in WEIGHTS for path in sorted((folder / name).glob("*.safetensors"))]
    try:
        parts = [_of_file(path, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    except OSError:
        return ""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16] if parts else ""


@functools.lru_cache(maxsize=4 * MOST_RUNS)
def _of_file(path: Path, changed: int, size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
