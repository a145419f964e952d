"""Where the files of a subset lie, and their rows, line by line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignbench import UserError, pretrained, user_path

HUB_ID = "Anthropic/hh-rlhf"
_SECONDS_TO_REACH_HUB = 5.0


@dataclass(frozen=True)
class Files:
    """`test` is None where there is one file for both, which is then split."""

    train: Path
    test: Path | None = None


def locate(path: Path, subset: str) -> Files:
    """The files of `subset` under `path`: `subset`/train.jsonl.gz as Anthropic has it, or `subset`.train.jsonl.gz; also
    unzipped, also test alone or train alone, also the folder of the subset itself."""
    path = user_path(path, "data.path")
    if path.is_file():
        return Files(path)
    if not path.is_dir():
        raise UserError(f"No such file or folder: data.path={path}.")
    looked_for: list[Path] = []

    def first(split: str) -> Path | None:
        stems = [f"{subset}/{split}", f"{subset}.{split}", *([split] if path.name == subset else [])]
        candidates = [path / (stem + ending) for stem in stems for ending in (".jsonl.gz", ".jsonl")]
        looked_for.extend(candidates)
        return next((candidate for candidate in candidates if candidate.is_file()), None)

    train, test = first("train"), first("test")
    if only := train or test:
        return Files(only, test if train else None)
    there = sorted(str(found.relative_to(path)) for found in path.rglob("*.jsonl*"))[:10]
    raise UserError(
        f"No file of the subset {subset!r} in data.path={path}. Looked for "
        f"{', '.join(str(candidate.relative_to(path)) for candidate in looked_for)}; "
        f"the folder has {', '.join(there) or 'no .jsonl file'}."
    )


def download(subset: str, revision: str) -> Files:
    """The files of `subset` from the hub (or its cache): the originals, read by the same code as local ones."""
    from huggingface_hub import HfApi, snapshot_download

    reason = ""
    try:
        HfApi().dataset_info(HUB_ID, revision=revision, timeout=_SECONDS_TO_REACH_HUB)
    except Exception as error:  # whatever keeps the hub from answering, a cached copy is as good
        reason = pretrained.one_line(error)
    try:
        folder = snapshot_download(
            HUB_ID,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[f"{subset}/*.jsonl.gz"],
            local_files_only=bool(reason),
        )
        return locate(Path(folder), subset)
    except Exception as error:
        raise UserError(
            f"{HUB_ID} ({subset}, revision {revision}) cannot be had from the Hugging Face hub, and no copy is cached "
            f"({reason or pretrained.one_line(error)}). Download the files elsewhere and give data.path=<folder>: it takes "
            f"{subset}/train.jsonl.gz and test.jsonl.gz, or {subset}.train.jsonl.gz and {subset}.test.jsonl.gz."
        ) from error


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    """(chosen, rejected) of every line; blank lines are skipped. A malformed line raises UserError naming it."""
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _row(line, f"{path}, line {number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}, after line {number}: not a whole gzip file ({error}). Download it again.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, after line {number}: not UTF-8 text ({error.reason}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _row(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg} at column {error.colno}).") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise UserError(f"{where}: no row of HH-RLHF ({pretrained.one_line(error)}).") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: an object with 'chosen' and 'rejected' is needed, not {type(row).__name__}.")
    for key in ("chosen", "rejected"):
        if key not in row:
            raise UserError(f"{where}: the key {key!r} is missing (keys: {', '.join(map(str, row)) or 'none'}).")
        if not isinstance(row[key], str):
            raise UserError(f"{where}: {key!r} must be text, not {type(row[key]).__name__}.")
    return row["chosen"], row["rejected"]
