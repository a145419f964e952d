"""Files of rows, as users have them."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignbench_data.config import PreferencesConfig
from alignbench_data.source import PreferencesData

from alignbench import Message, Seeds

Rows = list[dict[str, Any]]
ROWS: Rows = [{"prompt": f"p {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)]
LINES = [json.dumps(row) for row in ROWS]


def _zstd(content: bytes) -> bytes:
    import pyarrow

    return pyarrow.Codec("zstd").compress(content, asbytes=True)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": _zstd,
}


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def array(path: Path, rows: Rows) -> Path:
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return path


def table(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def arrow(path: Path, rows: Rows) -> Path:
    """A stream, as `datasets` writes it."""
    import pyarrow

    held = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(path, held.schema) as file:
        file.write_table(held)
    return path


def saved(folder: Path, rows: Rows) -> Path:
    """A folder that `datasets` saved."""
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows).save_to_disk(folder)
    return folder


def parquet(path: Path, rows: Rows) -> Path:
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def source(path: object, **options: Any) -> PreferencesData:
    return PreferencesData(PreferencesConfig(path=str(path), **options), seeds=Seeds(0))


def user(text: str) -> Message:
    return Message("user", text)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
