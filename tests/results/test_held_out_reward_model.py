"""The judge of other pairs: it learns from none that a run learns from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.results.test_committed import script
from tests.shared_data import shared_data


def test_no_prompt_is_in_both_and_the_sizes_are_those_that_the_plan_says() -> None:
    learned, measured = script("held_out_reward_model").pairs(str(shared_data("hh-rlhf")))
    assert not {ranking.prompt.id for ranking in learned} & {ranking.prompt.id for ranking in measured}
    assert (len(learned), len(measured)) == (653, 1587)


def test_a_folder_that_is_not_there_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = script("held_out_reward_model")
    assert judge.main([str(tmp_path / "nowhere"), "--output", str(tmp_path / "judge")]) == 2
    told = capsys.readouterr().err
    assert "nowhere" in told and told.count("\n") == 1
