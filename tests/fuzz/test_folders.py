"""A few damaged folders; `python -m tests.fuzz.folders` tries hundreds."""

from __future__ import annotations

import random
from pathlib import Path

from tests.fuzz import folders


def test_a_damaged_folder_is_refused_in_one_line_or_works(tmp_path: Path) -> None:
    made = folders.runs(tmp_path)
    found = [folders.trial(made, random.Random(f"0 {number}"), tmp_path / "trial") for number in range(8)]
    faults = [one for one in found if one.fault]
    assert not faults, f"{faults[0].command} after {faults[0].damage}: {faults[0].said}"
    assert any(one.code for one in found) and any(one.code == 0 for one in found)


def test_a_fault_is_seen() -> None:
    assert folders.Trial("", "", None, "Traceback").fault
    assert folders.Trial("", "", 2, "alignbench: error: this\nand that\n").fault
    assert folders.Trial("", "", 2, "").fault
    assert not folders.Trial("", "", 2, "warned before\nalignbench: error: this\n").fault
