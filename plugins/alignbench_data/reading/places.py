"""Where the rows of a path lie: its files or its splits, and which of them are for training and which are held out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from alignbench import UserError, unknown_name, user_path
from alignbench_data.reading.opening import open_bytes
from alignbench_data.reading.rows import Part, Row
from alignbench_data.reading.tables import arrow_rows, from_hub, parquet_rows, saved
from alignbench_data.reading.written import csv_rows, delimiter_of, holds_json, json_rows, text_rows

TEST_NAMES = ("test", "validation", "valid", "val", "dev", "eval")
KINDS = (".jsonl", ".json", ".ndjson", ".parquet", ".csv", ".tsv", ".arrow", ".txt")
_PACKINGS = (".gz", ".bz2", ".xz", ".zst")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_NOT_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
_SAVED = ("dataset_dict.json", "state.json")
"""One of them is in a folder that `datasets` saved."""
_MOST_FILES = 10_000
_HEAD = 4096


def parts_of(
    path: str,
    *,
    subset: str = "",
    revision: str = "",
    streaming: bool = False,
    option: str,
    has_subset: bool = False,
) -> list[Part]:
    """What lies at `path`. `option`: the setting that it was given as, and `has_subset`: whether data.subset is of it, for errors."""
    here = _path(path, option)
    try:
        is_file, is_folder = here.is_file(), here.is_dir()
        there = os.path.lexists(here)
    except (OSError, ValueError) as error:
        raise UserError(f"{option}={_short(path)} is no path ({getattr(error, 'strerror', None) or error}).") from error
    if is_file:
        return [Part(str(here), _split_of(here.name), lambda: file_rows(here))]
    if is_folder:
        if any((here / name).is_file() for name in _SAVED):
            return saved(here)
        return _of_folder(here, subset, option)
    if there:
        raise UserError(f"{option}={_short(path)} is no file and no folder: a link that leads nowhere, or a device.")
    looks_local = path.startswith(("/", ".", "~")) or path.endswith((*KINDS, *_PACKINGS)) or path.count("/") > 1
    if looks_local or not _HUB_ID.fullmatch(path):
        raise UserError(f"No such file or folder: {option}={_short(path)}.")
    return from_hub(path, subset, revision, streaming=streaming, option=option, has_subset=has_subset)


def idle(path: str, *, subset: str, revision: str) -> list[str]:
    """Those of the settings that choose on the hub, and say nothing of what lies at a path here."""
    here = Path(path).expanduser()
    whole = here.is_file() or any((here / name).is_file() for name in _SAVED)
    return [
        f"{name}={value}"
        for name, value, chooses in (("subset", subset, not whole), ("revision", revision, False))
        if value and here.exists() and not chooses
    ]


def _path(path: str, option: str) -> Path:
    return user_path(path, option)


def _short(path: str) -> str:
    path = "".join(letter if letter.isprintable() else "?" for letter in path)
    return path if len(path) <= 200 else f"{path[:200]}... ({len(path)} characters)"


def file_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by what it holds and then by what it is called."""
    if not path.exists():
        raise UserError(f"{path} is a link that leads nowhere: get the file that it is for, or take the link away.")
    with open_bytes(path) as file:
        head = file.read(_HEAD)
    if not head.strip() and len(head) < _HEAD:
        raise UserError(f"{path} is empty.")
    if head.startswith(b"PAR1"):
        return parquet_rows(path)
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return arrow_rows(path)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} is UTF-16 text. Save it as UTF-8.")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS and not the file: run `git lfs pull` where it came from.")
    if re.search(rb"[^\s\0]\r+[^\s\0]", head) and b"\n" not in head:
        raise UserError(
            f"{path}: its lines end in CR alone, as old Macs wrote them: save it with LF, as by tr '\\r' '\\n' <file >new."
        )
    suffix = _suffix(path)
    if suffix in (".csv", ".tsv") and not head.startswith((b'{"', b'[{"')):  # as no header of a table does
        return csv_rows(path, delimiter_of(head, "\t" if suffix == ".tsv" else ","))
    if suffix == ".txt" and not holds_json(head):
        return text_rows(path)
    if suffix in (".parquet", ".arrow"):
        raise UserError(f"{path}: not a whole {suffix[1:].capitalize()} file (it does not begin as one).")
    if suffix in (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt") or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (
        b"{",
        b"[",
    ):
        return json_rows(path)
    raise UserError(f"{path}: what kind of file it is cannot be told. Name it {', '.join(KINDS)} (packed or not).")


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKINGS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _of_folder(folder: Path, subset: str, option: str) -> list[Part]:
    files = list(_files(folder, option))
    if not files:
        there = sorted(found.name for found in folder.iterdir())[:8]
        raise UserError(
            f"{option}={folder}: no data file in this folder (it takes {', '.join(KINDS)}, packed or not); it has "
            f"{', '.join(there) or 'nothing'}."
        )
    if subset:
        named = [path for path in files if _has_word(path.relative_to(folder.parent).as_posix(), subset)]
        if not named:
            names = {part for path in files for part in path.relative_to(folder).parts[:1]}
            raise unknown_name("subset", subset, names, where=f"{option}={folder}")
        files = named
    return [
        Part(str(path), _split_of(path.relative_to(folder).as_posix()), lambda path=path: file_rows(path))
        for path in files
    ]


def _files(folder: Path, option: str) -> Iterator[Path]:
    seen = 0
    for root, folders, names in os.walk(folder):  # links to folders are not followed: they may lead in a circle
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            seen += 1
            if seen > _MOST_FILES:
                raise UserError(
                    f"{option}={folder} has more than {_MOST_FILES:,} files: give the folder of the data alone."
                )
            path = Path(root) / name
            if not name.startswith(".") and name not in _NOT_DATA and _suffix(path) in KINDS and _is_file(path):
                yield path


def _is_file(path: Path) -> bool:
    """Also where it is a link that leads nowhere: rows would be missing, and nobody be told."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _split_of(name: str) -> str:
    """The split that a file's name tells: train-00000-of-00002.parquet, helpful-base/test.jsonl.gz, dev_rows.json."""
    *folders, stem = name.lower().split("/")
    while any(stem.endswith(ending) for ending in (*KINDS, *_PACKINGS)):
        stem = stem.rpartition(".")[0]
    stem = re.sub(r"[-_.]\d+(-of-\d+)?$", "", stem)
    for word in ("train", *TEST_NAMES):
        if re.match(rf"{word}(?![a-z0-9])", stem):
            return stem
    for word in ("train", *TEST_NAMES):
        if _has_word(stem, word) or word in folders:
            return word
    return ""


def shares(parts: list[Part], train_split: str, test_split: str, *, option: str = "") -> tuple[list[Part], list[Part]]:
    """The parts to train on, and those that are held out: by name, where names tell. `option`: the setting of the place, where no
    other chooses among its splits."""
    how = f"give {option} the files of one" if option else "choose data.{}="
    if train_split:
        train = chosen_split(parts, train_split, "train_split")
    else:
        train = _named(parts, ("train",), how.format("train_split"))
    if test_split:
        test = chosen_split(parts, test_split, "test_split")
    else:
        others = [part for part in parts if part not in train]
        suffix = train_split.removeprefix("train")  # train_prefs is held beside test_prefs
        twins = [part for part in others if suffix and part.split.endswith(suffix)]
        test = _named(twins or others, TEST_NAMES, how.format("test_split")) if train else []
    train = train or [part for part in parts if part not in test]
    return train, [part for part in test if part not in train]


def chosen_split(parts: list[Part], wanted: str, option: str) -> list[Part]:
    """The parts of the split `wanted`, or the files that have it in their names. Raises UserError that lists what there is."""
    found = [part for part in parts if part.split == wanted]
    found = found or [part for part in parts if _has_word(Path(part.name).name, wanted)]
    if not found:
        choices = {part.split for part in parts if part.split} or {Path(part.name).name for part in parts}
        raise unknown_name("split", wanted, choices, where=f"data.{option}")
    return found


def _has_word(name: str, word: str) -> bool:
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z0-9])", name.lower()))


def _named(parts: list[Part], words: tuple[str, ...], how: str) -> list[Part]:
    for word in words:
        if exact := [part for part in parts if part.split == word]:
            return exact
        starts = {part.split for part in parts if part.split.startswith(word)}
        if len(starts) > 1:
            raise UserError(f"Several splits could be meant: {how} of {', '.join(sorted(starts))}.")
        if starts:
            return [part for part in parts if part.split in starts]
    return []
