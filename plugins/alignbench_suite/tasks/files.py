"""Where the rows of a task come from: the suite's own data, a folder of evaluation data, or the hub."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from alignbench import UserError
from alignbench_suite.tasks import POOL, PUBLIC

Row = Mapping[str, Any]
VARIABLE = "ALIGNBENCH_EVAL_PATH"


def own(name: str) -> list[Row]:
    """The rows of one of the suite's own files."""
    text = (resources.files("alignbench_suite") / "data" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def public(name: str, folder: str, hub: Callable[[], Iterable[Row]]) -> list[Row]:
    """The rows of the public file `name`, as published: from `folder` (or that of the environment variable) or from the hub."""
    folder = folder or os.environ.get(VARIABLE, "")
    if folder:
        return _read(found(name, folder))
    try:
        return [dict(row) for row in hub()]
    except Exception as error:  # whatever a download may raise
        reason = " ".join(str(error).split())[:200] or "no reason given"
        raise UserError(
            f"The data set of {name} could not be had from the hub ({reason}): give a folder that "
            f'has {name} as eval.path=<folder> (lm_eval: --metadata \'{{"path": "<folder>"}}\', or {VARIABLE}=<folder>).'
        ) from error


def has(name: str, folder: str) -> bool:
    """Raises UserError where there is no such folder: a mistyped one must not pass for one without the file."""
    if not Path(folder).is_dir():
        raise UserError(f"eval.path={folder} is not a folder: give one of evaluation data, or leave it empty.")
    return any(path.is_file() for path in _places(name, folder))


def found(name: str, folder: str) -> Path:
    """The file in the folder, in a folder of its own or by itself."""
    has(name, folder)
    for path in _places(name, folder):
        if path.is_file():
            return path
    raise UserError(f"{folder} has no {name}: put it there, or choose another folder or another task.")


def content(folder: str = "") -> str:
    """A digest of what the suite's questions are made of, its own and those in a folder of evaluation data."""
    folder = folder or os.environ.get(VARIABLE, "")
    files = [path for path in _places_of_questions(folder) if path.is_file()]
    digest = hashlib.sha256(_own_content().encode())
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:24]


def _places_of_questions(folder: str) -> list[Path]:
    return [place for name in sorted({*PUBLIC.values(), POOL}) for place in _places(name, folder)] if folder else []


@functools.cache
def _own_content() -> str:
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.glob("data/*.jsonl"), *package.glob("tasks/*/*.yaml")]):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def documents(rows: Iterable[Row]) -> dict[str, Any]:
    """What lm-eval's `custom_dataset` returns. In the order of a hash of their id, so that a limit takes some of everything,
    the same ones for every model."""
    from datasets import Dataset

    found = [dict(row) for row in rows]
    if twice := [id for id, count in Counter(row["id"] for row in found).items() if count > 1]:
        raise UserError(f"The id {twice[0]!r} stands twice among the questions: each is scored once.")
    return {"test": Dataset.from_list(sorted(found, key=lambda row: number(row["id"])))}


def number(text: str) -> int:
    """A number that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.sha256(str(text).encode()).digest()[:8], "big")


def shuffled(options: Sequence[str], seed: str) -> list[str]:
    return sorted(options, key=lambda option: number(f"{seed} {option}"))


def _places(name: str, folder: str) -> tuple[Path, Path]:
    return Path(folder) / name, Path(folder) / Path(name).name


def _read(path: Path) -> list[Row]:
    number = 0
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            rows = list(json.loads(text))
        else:
            rows = []
            for number, line in enumerate(text.split("\n"), 1):  # noqa: B007 (named in the error)
                rows += [json.loads(line)] if line.strip() else []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read{f', line {number}' if number else ''}: {error}.") from None
    if not rows:
        raise UserError(f"{path} is empty.")
    return rows
