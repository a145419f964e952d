"""Runs that the page starts: only what may be chosen, the run's own state, stopped and gone on with."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alignbench import UserError
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
    trainings = Trainings(tmp_path / "runs")
    started = trainings.start(
        {"algo": "dpo"}, fixed=(*FIXED, "annotator=recorded", f"annotator.path={tmp_path}/missing.jsonl")
    )
    failed = until(trainings, started.id, lambda p: p.status == "failed")
    assert "annotator.path" in failed.error and "missing.jsonl" in failed.error
