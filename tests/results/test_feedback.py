"""What rankings buy: the tables from runs whose gold rewards are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignbench import Direction, Metric
from tests.results.on_disk import write
from tests.results.test_committed import script

GOLD, AGREEMENT = "helpfulness/gold_reward", "sycophancy/agreement"


def made(folder: Path, algo: str, prompts: int, golds: tuple[float, ...], **annotator: float) -> None:
    """A run for each seed, which agrees a tenth as often as its gold reward is high."""
    for seed, gold in enumerate(golds):
        settings = {
            "algo": {"name": algo},
            "seed": seed,
            "rankings": {"prompts": prompts},
            "annotator": {"temperature": 0.5, **annotator},
        }
        metrics = {
            GOLD: Metric(gold, 0.1, 100, Direction.HIGHER),
            AGREEMENT: Metric(gold / 10, 0.1, 100, Direction.LOWER),
        }
        write(folder, settings, metrics=metrics)


def test_what_rankings_buy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for prompts, golds in {25: (1.0, 2.0), 100: (2.92, 2.92), 400: (2.6, 2.6), 1600: (3.0, 3.0)}.items():
        made(tmp_path, "ppo", prompts, golds)
    for prompts, golds in {25: (2.0, 2.2), 100: (2.52, 2.52), 400: (2.6, 2.6), 1600: (2.6, 2.6)}.items():
        made(tmp_path, "dpo", prompts, golds)
    for algo in ("ppo", "dpo"):
        made(tmp_path, algo, 400, (1.6, 1.6), temperature=1.5)
        made(tmp_path, algo, 400, (2.5, 2.5), rating_step=2.0, sycophants=0.0)
        made(tmp_path, algo, 400, (2.0, 2.0), rating_step=0.0, sycophants=0.25)
    script("feedback").main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "| gold reward ↑ | 25 | 100 | 400 | 1,600 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| `dpo` | 2.10 ±1.27 | 2.52 ±0.00 | 2.60 ±0.00 | 2.60 ±0.00 |",
        "| `ppo` | 1.50 ±6.35 | 2.92 ±0.00 | 2.60 ±0.00 | 3.00 ±0.00 |",
        "",
        "| lost against 1,600 | 25 | 100 | 400 | enough |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| `dpo` | 0.50 ±1.27 | 0.08 ±0.00 | 0.00 ±0.00 | 100 |",
        "| `ppo` | 1.50 ±6.35 | 0.08 ±0.00 | 0.40 ±0.00 | 1,600 |",  # 100 was luck: 400 lose more
        "",
        "| as good with 1,600: | `dpo` | `ppo` |",
        "| --- | ---: | ---: |",
        "| `dpo` with | 400 | – |",
        "| `ppo` with | 100 | 1,600 |",
        "",
        "| gold reward ↑ | 400 | 25% by sycophants | rated in steps of 2 | at temperature 1.5 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| `dpo` | 2.60 ±0.00 | 2.00 ±0.00 | 2.50 ±0.00 | 1.60 ±0.00 |",
        "| `ppo` | 2.60 ±0.00 | 2.00 ±0.00 | 2.50 ±0.00 | 1.60 ±0.00 |",
        "",
        "| gold reward: worse than with 400 by | 25% by sycophants | rated in steps of 2 | at temperature 1.5 |",
        "| --- | ---: | ---: | ---: |",
        "| `dpo` | 0.60 ±0.00 | 0.10 ±0.00 | 1.00 ±0.00 |",
        "| `ppo` | 0.60 ±0.00 | 0.10 ±0.00 | 1.00 ±0.00 |",
        "",
        "| agreement ↓ | 400 | 25% by sycophants | rated in steps of 2 | at temperature 1.5 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| `dpo` | 0.26 ±0.00 | 0.20 ±0.00 | 0.25 ±0.00 | 0.16 ±0.00 |",
        "| `ppo` | 0.26 ±0.00 | 0.20 ±0.00 | 0.25 ±0.00 | 0.16 ±0.00 |",
        "",
        "| agreement: worse than with 400 by | 25% by sycophants | rated in steps of 2 | at temperature 1.5 |",
        "| --- | ---: | ---: | ---: |",
        "| `dpo` | -0.06 ±0.00 | -0.01 ±0.00 | -0.10 ±0.00 |",
        "| `ppo` | -0.06 ±0.00 | -0.01 ±0.00 | -0.10 ±0.00 |",
    ]


def test_seeds_that_have_all_are_compared_and_what_is_not_there_yet_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, "ppo", 25, (1.0, 1.0, 9.0))
    made(tmp_path, "ppo", 1600, (2.0, 3.0))
    made(tmp_path, "dpo", 25, (1.0,))
    made(tmp_path, "ppo", 25, (1.5,), sycophants=0.25)
    script("feedback").main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert "| `ppo` | 1.00 ±0.00 | 2.50 ±6.35 |" in lines
    assert "| `ppo` | 1.50 ±6.35 | 1,600 |" in lines
    assert "| `ppo` | 1.00 | 1.50 |" in lines, "the seed that has both"
    assert lines[-2:] == [
        "Not there yet of `dpo`: 25 prompts, 25% by sycophants, seed 0; 1,600 prompts, seed 0.",
        "Not there yet of `ppo`: 25 prompts, 25% by sycophants, seed 1; 25 prompts, 25% by sycophants, seed 2; 1,600 prompts, seed 2.",
    ]


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
