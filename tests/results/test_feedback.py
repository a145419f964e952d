"""What rankings buy: the tables from runs whose gold rewards are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignbench import Direction, Metric
from tests.results.on_disk import write
from tests.results.test_committed import script

GOLD = "helpfulness/gold_reward"


def made(folder: Path, algo: str, prompts: int, golds: tuple[float, ...], temperature: float = 0.5) -> None:
    """A run for each seed."""
    for seed, gold in enumerate(golds):
        settings = {
            "algo": {"name": algo},
            "seed": seed,
            "rankings": {"prompts": prompts},
            "annotator": {"temperature": temperature},
        }
        write(folder, settings, metrics={GOLD: Metric(gold, 0.1, 100, Direction.HIGHER)})


def test_what_rankings_buy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for prompts, golds in {25: (1.0, 2.0), 100: (2.92, 2.92), 400: (2.6, 2.6), 1600: (3.0, 3.0)}.items():
        made(tmp_path, "ppo", prompts, golds)
    for prompts, golds in {25: (2.0, 2.2), 100: (2.52, 2.52), 400: (2.6, 2.6), 1600: (2.6, 2.6)}.items():
        made(tmp_path, "dpo", prompts, golds)
    for algo in ("ppo", "dpo"):
        made(tmp_path, algo, 400, (1.6, 1.6), temperature=1.5)
    script("feedback").main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "| gold reward ↑ | 25 | 100 | 400 | 1,600 | 400 at temperature 1.5 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| `dpo` | 2.10 ±1.27 | 2.52 ±0.00 | 2.60 ±0.00 | 2.60 ±0.00 | 1.60 ±0.00 |",
        "| `ppo` | 1.50 ±6.35 | 2.92 ±0.00 | 2.60 ±0.00 | 3.00 ±0.00 | 1.60 ±0.00 |",
        "",
        "| lost against 1,600 | 25 | 100 | 400 | 400 at temperature 1.5 | enough |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| `dpo` | 0.50 ±1.27 | 0.08 ±0.00 | 0.00 ±0.00 | 1.00 ±0.00 | 100 |",
        "| `ppo` | 1.50 ±6.35 | 0.08 ±0.00 | 0.40 ±0.00 | 1.40 ±0.00 | 1,600 |",  # 100 was luck: 400 lose more
        "",
        "| as good with 1,600: | `dpo` | `ppo` |",
        "| --- | ---: | ---: |",
        "| `dpo` with | 400 | – |",
        "| `ppo` with | 100 | 1,600 |",
    ]


def test_seeds_that_have_all_are_compared_and_what_is_not_there_yet_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, "ppo", 25, (1.0, 1.0, 9.0))
    made(tmp_path, "ppo", 1600, (2.0, 3.0))
    made(tmp_path, "dpo", 25, (1.0,))
    script("feedback").main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert "| `ppo` | 1.00 ±0.00 | 2.50 ±6.35 |" in lines
    assert "| `ppo` | 1.50 ±6.35 | 1,600 |" in lines
    assert lines[-1] == "Not there yet: `dpo`."


def test_what_is_no_table_of_rankings_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "other", {"seed": 0, "rankings": {"prompts": 100}})
    made(tmp_path / "begun", "ppo", 25, (1.0,))
    made(tmp_path / "begun", "dpo", 100, (1.0,))
    made(tmp_path / "one", "ppo", 25, (1.0, 2.0))
    for folder, said in (
        ("one", "nothing to compare"),
        ("other", "no annotator.temperature"),
        ("begun", "every number of rankings yet"),
    ):
        with pytest.raises(SystemExit):
            script("feedback").main([str(tmp_path / folder)])
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "No folder"), ("", "has no finished run")])
def test_no_runs_are_one_line(folder: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("feedback").main([str(tmp_path / folder)])
    assert said in capsys.readouterr().err
