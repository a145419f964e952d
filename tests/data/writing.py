"""Files of rows, as users have them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from alignbench_data.config import PreferencesConfig
from alignbench_data.source import PreferencesData

from alignbench import Message, Seeds

Rows = list[dict[str, Any]]


def lines(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def array(path: Path, rows: Rows) -> Path:
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return path


def table(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


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
