"""Runs that the page starts: only what may be chosen, the run's own state, stopped and gone on with."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from alignbench import AlignbenchError, UserError
from alignbench.app.compose import load_config
from alignbench.page import points as page_points
from alignbench.page import training
from alignbench.page.points import looked_at
from alignbench.page.training import Choice, Progress, Trainings, checked
from tests.core.harness import SMALL

FIXED = (*SMALL, "eval=quick", "eval.families=[optimization]")


def until(trainings: Trainings, name: str, done: Callable[[Progress], bool], seconds: float = 120) -> Progress:
    deadline = time.monotonic() + seconds
    while True:
        progress = trainings.progress(name)
        if done(progress):
            return progress
        assert time.monotonic() < deadline, progress
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("algo", "ppo,dpo"), ("algo", "../x"), ("algo", "ppo seed=1"), ("algo", 3), ("algo", ""), ("model.path", "gpt2"),
        ("annotator.path", "secrets.jsonl"), ("results_dir", "elsewhere"), ("hydra.run.dir", "x"), ("algo.kl_coef", "0.1"),
        ("algo.kl_coef", float("nan")), ("algo.kl_coef", [0.1]), ("algo.kl_coef=1 x", 1), ("algo.kl_coef\n", 1), ("device", "cuda"),
        ("+x", 1), ("~algo", 1), ("eval.families", ["optimization,x"]), ("eval.families", [["optimization"]]), ("eval.families", {}),
        ("cache_dir", "x"), ("seed", "0"), ("reward.function", "os:system"),
    ],
)  # fmt: skip
def test_what_a_browser_cannot_choose(key: str, value: Choice) -> None:
    if key == "eval.families" and not value:
        assert checked({key: value}) == ["eval.families=[]"]
        return
    with pytest.raises(UserError):
        checked({key: value})


def test_names_numbers_and_switches_are_chosen() -> None:
    given = {
        "algo": "ppo",
        "algo.kl_coef": 0.2,
        "seed": 3,
        "algo.whiten_rewards": True,
        "eval.families": ["optimization"],
    }
    assert checked(given) == [
        "algo=ppo", "algo.kl_coef=0.2", "seed=3", "algo.whiten_rewards=true", "eval.families=[optimization]",
    ]  # fmt: skip


def test_what_no_run_could_be_is_refused_before_a_process_starts(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path / "runs")
    for wrong in ({"algo": "ppos"}, {"algo.kl_coeff": 0.1}, {"algo.batch_size": -3}):
        with pytest.raises(UserError):
            trainings.start(wrong)
    assert trainings.all() == []


@pytest.mark.parametrize("name", ["", "../../etc", "0" * 16])
def test_a_training_that_is_not_known(tmp_path: Path, name: str) -> None:
    for ask in (Trainings(tmp_path).progress, Trainings(tmp_path).stop, Trainings(tmp_path).resume):
        with pytest.raises(UserError, match="no such training"):
            ask(name)


def test_a_run_is_started_watched_stopped_and_goes_on(tmp_path: Path) -> None:
    results = tmp_path / "it's runs"  # a path that has to be quoted
    trainings = Trainings(results)
    started = trainings.start({"algo": "dpo", "algo.updates": 4000}, fixed=FIXED, title="four thousand")
    assert trainings.start({"algo": "dpo", "algo.updates": 4000}, fixed=FIXED) == started, (
        "a second click starts nothing"
    )
    seen = until(trainings, started.id, lambda p: any(line["stage"] == "dpo" for line in p.lines))
    assert seen.status == "running" and seen.run.endswith(started.name) and seen.next == len(seen.lines)
    assert len(trainings.progress(started.id, after=seen.next - 1).lines) < seen.next

    elsewhere = Trainings(results)  # a server that was started anew
    elsewhere.stop(started.id)
    stopped = until(trainings, started.id, lambda p: p.status != "running")
    assert stopped.status == "interrupted"

    again = elsewhere.resume(started.id)
    assert again.id == started.id
    on = until(elsewhere, again.id, lambda p: p.status == "running" and p.next > stopped.next)
    assert on.run == stopped.run, "the same run"
    os.kill(again.process, signal.SIGKILL)
    assert until(elsewhere, again.id, lambda p: p.status != "running").status == "interrupted", (
        "nobody wrote how it ended"
    )


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "damaged.jsonl").write_text("{")
    trainings = Trainings(tmp_path / "runs")
    started = trainings.start(
        {"algo": "dpo"}, fixed=(*FIXED, "annotator=recorded", f"annotator.path={tmp_path}/damaged.jsonl")
    )
    failed = until(trainings, started.id, lambda p: p.status == "failed")
    assert "damaged.jsonl" in failed.error


def test_what_cannot_be_written_down_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could watch or stop it."""

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            started.append(self)

    monkeypatch.setattr(training, "write_whole", full)
    monkeypatch.setattr(training.subprocess, "Popen", Noted)
    with pytest.raises(AlignbenchError, match="the disk is full"):
        Trainings(tmp_path / "runs").start({"algo": "dpo"}, fixed=FIXED)
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert Trainings(tmp_path / "runs").all() == []


def test_a_results_folder_that_vanishes_takes_its_trainings_along(tmp_path: Path) -> None:
    results = tmp_path / "runs"
    trainings = Trainings(results)
    started = trainings.start({"algo": "dpo", "algo.updates": 4000}, fixed=FIXED)
    process = psutil.Process(started.process)
    shutil.rmtree(results)
    with pytest.raises(UserError, match="no such training"):
        trainings.progress(started.id)
    assert trainings.all() == []
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def test_a_run_is_looked_at_some_ten_times_unless_it_says_how_often() -> None:
    def every(*overrides: str, rows: int = 0) -> str:
        found = [one for one in looked_at(load_config(overrides), rows) if one.startswith("eval.every")]
        return found[0].partition("=")[2] if found else "not"

    assert every("algo=ppo", "algo.updates=60") == "6"
    assert every("algo=dpo", "algo.updates=4") == "1"
    passes = ("algo=dpo", "algo.updates=0", "algo.passes=10", "algo.batch_size=16")
    assert every(*passes, rows=120) == "8", "75 updates"
    assert every(*passes, rows=3) == "1"
    assert every(*passes) == "not", "how many updates they are is not known"
    assert every("algo=ppo", "eval.every=3") == every("algo=best_of_n") == every("algo=sft") == "not"


def test_a_point_that_comes_while_one_looks_is_told_whole_or_not_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said is written before the point's line; it comes between two readings here."""

    def write(name: str, update: int, **line: Any) -> None:
        with (tmp_path / name).open("a") as file:
            file.write(json.dumps({"update": update, **line}) + "\n")

    def point(update: int) -> None:
        write("points-generations.jsonl", update, index=0, prompt="p", response="so")
        write("points.jsonl", update, metrics={})

    read: list[Path] = []

    def between(path: Path) -> list[Any]:
        found = list(json_lines(path))
        read.append(path)
        if len(read) == 1:
            point(1)
        return found

    point(0)
    json_lines = page_points.json_lines
    monkeypatch.setattr(page_points, "json_lines", between)
    for seen in (1, 2):
        found = page_points.points(tmp_path)
        assert [(one["update"], len(one["said"])) for one in found] == [(k, 1) for k in range(seen)]


def test_points_are_told_once_each_with_what_was_said(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path / "runs")
    started = trainings.start({"algo": "dpo", "algo.updates": 4}, fixed=FIXED)
    done = until(trainings, started.id, lambda p: p.status != "running" and p.status != "starting")
    assert done.status == "finished", done.error
    assert [point["update"] for point in done.points] == [0, 1, 2, 3, 4] and done.next_point == 5
    for point in done.points:
        assert {"gold", "kl"} <= point.keys() and len({said["prompt"] for said in point["said"]}) == 12
        assert {said["opinion"] for said in point["said"]} == {"", "right", "wrong"}
    assert done.points[0]["kl"] == pytest.approx(0, abs=1e-5) and done.points[-1]["kl"] > 0
    assert trainings.progress(started.id, point=3).points == done.points[3:]
    assert trainings.progress(started.id, point=9).points == done.points, "it has taken some back"
    (run,) = (tmp_path / "runs").glob("*dpo*")
    (run / "points-generations.jsonl").write_text('{"update": 0, "index": 0}\n{half a li')
    damaged = trainings.progress(started.id).points
    assert [len(point["said"]) for point in damaged] == [1, 0, 0, 0, 0]
    json.dumps(asdict(trainings.progress(started.id)), allow_nan=False)
