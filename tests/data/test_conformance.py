"""Data sources that read files of a user's, held to the conformance kit on small ones; a file that is missing is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignbench.plugins import resolve
from alignbench.testing import Status, with_defaults
from alignbench.testing.checks import run_checks
from alignbench.testing.conformance import DATA_CHECKS
from tests.core.harness import command
from tests.data import writing
from tests.data.inputs import INPUTS, QUESTIONS


@pytest.mark.parametrize("name", ["1 strings", "7 saved splits", "11 trees", "12 dialogues"])
def test_ordinary_inputs_conform(name: str, tmp_path: Path) -> None:
    component = with_defaults(resolve("data=preferences"), {"path": str(INPUTS[name](tmp_path, QUESTIONS))})
    results = {result.check.name: result for result in run_checks(DATA_CHECKS, component)}
    assert {name for name, result in results.items() if result.status is Status.FAILED} == set()
    assert results["truth_is_known_of_all_or_of_none"].status is Status.NOT_APPLICABLE


def test_dialogues_of_hh_conform(tmp_path: Path) -> None:
    rows = [
        {role: f"\n\nHuman: {asked}\n\nAssistant: {text}" for role, text in (("chosen", good), ("rejected", bad))}
        for asked, good, bad in QUESTIONS
    ]
    path = writing.lines(tmp_path / "hh.jsonl", rows)
    component = with_defaults(resolve("data=hh"), {"path": str(path), "held_out_rows": 4})
    assert Status.FAILED not in {result.status for result in run_checks(DATA_CHECKS, component)}


def test_data_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    done = command(capsys, "check", "data=preferences", "data.path=missing.jsonl")
    assert (done.code, len(done.errors)) == (2, 1) and "data.path=missing.jsonl" in done.errors[0]
