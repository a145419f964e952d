"""The policy as it stands, evaluated along training: it disturbs nothing, costs training nothing, and goes on after a kill."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from polars import read_parquet

from alignbench import DemonstrationBatch
from alignbench.app.config import BudgetSettings
from alignbench.commands.cli import run_command
from alignbench.pipeline.training import train
from alignbench.results.compared.table import build_table
from alignbench.results.compared.training_points import trajectory
from alignbench.results.disk.runs import StoredRun, find_runs
from tests import tiny
from tests.core.harness import SMALL, Command, Plugin, lines, records
from tests.core.test_resume import only, stopped
from tests.core.test_training import Moving, good

OPTIONS = ("cache=false", "reward.updates=2", "algo.updates=3")
POINTS = ("eval.every=2", "eval.points.questions=8", "eval.points.samples=1")
FILES = ("examples.parquet", "generations.jsonl", "train.jsonl", "rankings.jsonl", "model/model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with points that nothing stopped."""
    folder = tmp_path_factory.mktemp("points")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert run_command([*SMALL, *OPTIONS, *POINTS, f"results_dir={folder}"]) == 0
    return only(folder)


def measured(path: Path) -> list[dict[str, Any]]:
    """The points, less the seconds that they took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines(path / "points.jsonl")]


def test_points_are_measured_before_between_and_after(whole: Path) -> None:
    points = lines(whole / "points.jsonl")
    assert [point["update"] for point in points] == [0, 2, 3]
    metrics = [point["metrics"] for point in points]
    assert {"optimization/gold_reward", "optimization/proxy_reward", "sycophancy/agreement"} <= metrics[0].keys()
    assert metrics[0]["optimization/kl"]["value"] == pytest.approx(0, abs=1e-5), "the SFT model"
    assert metrics[1]["optimization/kl"]["value"] > 0.001
    assert metrics[0]["optimization/gold_reward"]["n"] == 8 * 3, "of eight questions under three opinions"
    found = trajectory(StoredRun(whole, None))  # type: ignore[arg-type]
    assert found.gold is not None and found.gold.shape == (3, 24)
    values = [point["metrics"]["optimization/gold_reward"]["value"] for point in points]
    assert values == pytest.approx(found.gold.mean(1).tolist())


def test_what_it_says_to_a_few_prompts_is_kept_of_every_point(whole: Path) -> None:
    """The same four questions under three opinions each time; before the first update it is the SFT model that answers."""
    said = lines(whole / "points-generations.jsonl")
    assert Counter(line["update"] for line in said) == {0: 12, 2: 12, 3: 12}
    asked = [[line["prompt"] for line in said if line["update"] == update] for update in (0, 2, 3)]
    assert asked[0] == asked[1] == asked[2] and len({line["cluster"] for line in said}) == 4
    (final,) = {tuple(line) for line in lines(whole / "generations.jsonl")}
    assert all(tuple(line) == ("update", *final) for line in said), "lines as those of generations.jsonl"
    scored = read_parquet((whole / "points.parquet").read_bytes()).rows(named=True)
    gold = {(row["update"], row["example"]): row["value"] for row in scored if row["metric"].endswith("/gold_reward")}
    assert all(line["gold_reward"] == gold[line["update"], line["prompt"]] for line in said), "those that were measured"


def test_training_and_the_final_evaluation_are_the_same_without_points(
    whole: Path, small: Command, tmp_path: Path
) -> None:
    assert small(*OPTIONS).code == 0
    without = only(tmp_path / "runs")
    for name in FILES:
        assert (whole / name).read_bytes() == (without / name).read_bytes(), name
    one, other = records(whole)[0], records(without)[0]
    assert one["metrics"] == other["metrics"]
    assert one["identity"]["config_hash"] == other["identity"]["config_hash"], "they are one row of a table"
    added = {p.name for p in whole.iterdir()} - {p.name for p in without.iterdir()}
    assert added == {"points.jsonl", "points.parquet", "points-generations.jsonl"}
    table = build_table(*find_runs([whole, without]))
    assert [" ".join(row.label) for row in table.rows] == ["sft", "ppo"]


def test_an_interrupted_run_does_not_measure_its_points_again(
    whole: Path, small: Command, plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tmp_path / "parts"
    options = (f"results_dir={parts}", *OPTIONS, *POINTS)
    assert stopped(small, plugin, "ppo", 3, KeyboardInterrupt(), *options) == 130
    run = only(parts)
    before = (run / "points.jsonl").read_text()
    assert [point["update"] for point in lines(run / "points.jsonl")] == [0, 2]
    assert small(*options).code == 0
    assert measured(run) == measured(whole)
    for name in ("points.parquet", "points-generations.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert (run / "points.jsonl").read_text().startswith(before), "with the seconds that they took then"
    seconds = records(run)[0]["cost"]["seconds"]["evaluate points"]
    assert seconds == pytest.approx(sum(point["seconds"] for point in lines(run / "points.jsonl")), rel=0.2)
    assert (run / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()


def test_a_run_killed_while_it_measures_a_point_measures_it_when_it_goes_on(
    whole: Path, small: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignbench.results.compared.training_points import Points

    add = Points.add

    def killed(self: Points, update: int, *rest: Any) -> None:
        if update == 2:
            raise KeyboardInterrupt
        add(self, update, *rest)

    monkeypatch.setattr(Points, "add", killed)
    assert small(*OPTIONS, *POINTS).code == 130
    monkeypatch.setattr(Points, "add", add)
    assert small(*OPTIONS, *POINTS).code == 0
    assert measured(only(tmp_path / "runs")) == measured(whole)


def length_in_letters(prompt: str, response: str) -> float:
    return float(len(response))


@pytest.mark.parametrize("wanted", [True, False])
def test_the_judge_is_asked_at_every_point_where_that_is_wanted(wanted: bool, small: Command, tmp_path: Path) -> None:
    judge = ("reward@judge=function", f"judge.target={__name__}:length_in_letters", f"eval.points.judge={wanted}")
    families = ("eval.families=[helpfulness,optimization]", "eval.points.families=[helpfulness]")
    assert small(*OPTIONS, *POINTS, *judge, *families).code == 0
    directory = only(tmp_path / "runs")
    assert "helpfulness/judge_reward" in records(directory)[0]["metrics"], "the end is judged in any case"
    points = [point["metrics"].get("helpfulness/judge_reward") for point in lines(directory / "points.jsonl")]
    if not wanted:
        assert points == [None, None, None]
        return
    said = lines(directory / "points-generations.jsonl")
    scored = read_parquet((directory / "points.parquet").read_bytes()).rows(named=True)
    judged = {(r["update"], r["example"]): r["value"] for r in scored if r["metric"] == "helpfulness/judge_reward"}
    assert all(judged[line["update"], line["prompt"]] == len(line["response"]) for line in said) and said


def test_what_is_not_trained_has_no_points(command: Command, tmp_path: Path) -> None:
    sizes = [option for option in SMALL if not option.startswith("algo.")]
    assert command(*sizes, "algo=best_of_n", "algo.n=2", "eval.every=1", "reward.updates=2").code == 0
    assert command(*sizes, "algo=sft", "algo.updates=2", "eval.every=1").code == 0
    assert not list((tmp_path / "runs").rglob("points.*"))
    (chosen,) = (tmp_path / "runs").glob("*-best_of_n-*")
    assert json.loads((chosen / "result.json").read_text())["cost"]["tokens_per_second"] is None


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("eval.every=-1", "eval.every=-1"),
        ("eval.points.samples=9", "eval.points.samples=9 must be 1 to eval.samples=2"),
        ("eval.points.families=[sycophany]", "sycophancy"),
        ("eval.points.question=3", "questions"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(option: str, said: str, small: Command, tmp_path: Path) -> None:
    every = [] if option.startswith("eval.every") else ["eval.every=1"]
    done = small(option, *every)
    assert done.code == 2 and len(done.errors) == 1 and said in done.errors[0]
    assert not (tmp_path / "runs").exists()


def test_the_time_of_a_point_is_none_of_trainings() -> None:
    policy = tiny.scratch()
    batch, seen = DemonstrationBatch(tiny.sequences(policy)), []

    def point(updates: int, last: bool) -> None:
        seen.append((updates, last))
        time.sleep(0.5)

    done = train(
        "stage", Moving(policy, good), lambda done: [batch] * 3,
        policy=policy, updates=3, step=lambda *_: None, budget=BudgetSettings(seconds=1.0), point=point,
    )  # fmt: skip
    assert seen == [(0, False), (1, False), (2, False), (3, True)]
    assert done.updates == 3 and done.stopped is None and done.seconds < 1.0


def test_the_last_point_is_where_training_was_stopped() -> None:
    policy = tiny.scratch()
    batch, seen = DemonstrationBatch(tiny.sequences(policy)), []
    train(
        "stage", Moving(policy, good), lambda done: [batch] * 9, policy=policy, updates=9, step=lambda *_: None,
        budget=BudgetSettings(samples=2 * len(batch.sequences)), point=lambda *a: seen.append(a),
    )  # fmt: skip
    assert seen == [(0, False), (1, False), (2, True)]
