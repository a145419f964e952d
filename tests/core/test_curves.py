"""What a tracker is sent of a run, by names that every algorithm shares; and that it only watches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alignbench import Generation, Tracker
from alignbench.pipeline import curves
from alignbench.results.disk.directory import RunDirectory
from tests.core.harness import Command


@dataclass
class Recorder(Tracker):
    logged: list[tuple[str, float, int]] = field(default_factory=list)
    said: list[tuple[int, Sequence[Generation]]] = field(default_factory=list)
    fails: bool = False
    closed: bool = False

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if self.fails:
            raise ConnectionError("the network\nis down")
        self.logged += [(name, value, step) for name, value in metrics.items()]

    def responses(self, generations: Sequence[Generation], step: int) -> None:
        self.said.append((step, generations))

    def finish(self) -> None:
        self.closed = True

    def steps(self, name: str) -> list[int]:
        return [step for logged, _, step in self.logged if logged == name]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(curves, "tracker", lambda config, directory: recorder)
    return recorder


def test_names_are_the_same_for_every_algorithm(small: Command, recorder: Recorder) -> None:
    done = small("algo.updates=3", "eval.every=2", "eval.points.questions=4")
    assert done.code == 0, done.err
    names = {name for name, _, _ in recorder.logged}
    assert {name.partition("/")[0] for name in names} == {"pretrain", "sft", "reward", "train", "eval", "time"}
    assert recorder.steps("train/reward") == recorder.steps("train/kl") == [1, 2, 3]
    assert recorder.steps("sft/loss") == [1, 2, 3]
    assert recorder.steps("eval/optimization/kl") == [0, 2, 3], "the last is the whole evaluation, once"
    assert recorder.steps("time/update") == [1, 2, 3]
    assert recorder.steps("time/ppo") == recorder.steps("time/evaluate_sft") == [3]
    assert recorder.steps("time/tokens_per_second") == [3]
    assert [step for step, _ in recorder.said] == [0, 2, 3]
    asked = [[g.prompt.id for g in generations] for _, generations in recorder.said]
    assert asked[0] and asked[0] == asked[1] == asked[2][: len(asked[0])], "the same prompts each time"
    assert all(g.index == 0 and g.proxy_reward is not None for _, said in recorder.said for g in said)
    assert all(len(said) <= curves.READ for _, said in recorder.said)
    assert recorder.closed


def test_sft_as_the_algorithm_is_what_is_trained(small: Command, recorder: Recorder) -> None:
    done = small("algo=sft", "algo.updates=2")
    assert done.code == 0, done.err
    assert recorder.steps("train/loss") == [1, 2]
    assert [step for step, _ in recorder.said] == [2]


def test_a_tracker_that_fails_is_a_warning_and_not_the_run_s_fate(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder.fails, warned = True, list[str]()
    monkeypatch.setattr(curves.log, "warning", lambda text, *values: warned.append(text % values))
    with curves.tracked(None, RunDirectory(tmp_path)) as tracker:  # type: ignore[arg-type]
        for step in range(2):
            tracker.log({"train/kl": 1.0}, step)
        tracker.responses([], 2)
    assert warned == ["The tracker could not log: the network is down"]
    assert [step for step, _ in recorder.said] == [2]
    assert recorder.closed
