"""A few dozen damaged data files of every kind; `python -m tests.fuzz.data` tries thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from alignbench_data.reading import places

from tests.fuzz import data


def test_any_data_file_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    found = data.fuzz(160, 0, tmp_path)
    assert not found.faults, found.faults[0]
    assert found.tried == 160 and found.refused > 20 and found.well > 20


def test_whole_files_of_every_kind_are_read(tmp_path: Path) -> None:
    """Else whatever is refused would be no wonder."""
    for name, write in data.FORMATS.items():
        write(tmp_path / name, data.ROWS)
        assert data.source(tmp_path / name).counts()["read"] >= 40, name
    assert {places._suffix(Path(name)) for name in data.FORMATS} >= {*places.KINDS}


@pytest.mark.parametrize("kind", ["bytes", "rows"])
def test_a_fault_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Of what reads written rows, and of what reads tables."""
    planted = {"bytes": "parquet_rows", "rows": "json_rows"}[kind]

    def broken(*_: object) -> None:
        raise KeyError(planted)

    monkeypatch.setattr(places, planted, broken)
    found = data.fuzz(60, 0, tmp_path)
    assert found.faults and all(f"KeyError: '{planted}'" in wrong for _, wrong in found.faults)
