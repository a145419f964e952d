"""`alignbench tutorial`: what it says is what its runs measured, and what was run is not run again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from alignbench import Direction, Metric
from alignbench.app.compose import load_config
from alignbench.commands import tutorial
from alignbench.commands.cli import run_command
from alignbench.commands.tutorial import COMMON, RUNS, SECTIONS, Finished, command, first_looked_at
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.record import Cost, RunRecord, Status
from alignbench.results.disk.runs import find_runs
from tests.results.on_disk import write

ROOT = Path(__file__).parents[2]
REPORTS = {
    "reward/held_out_accuracy": 0.731,
    "reward/annotator_ceiling": 0.782,
    "reward/length_correlation": -0.25,
}
METRICS = (
    "optimization/gold_reward", "optimization/proxy_reward", "optimization/kl", "helpfulness/accuracy", "sycophancy/agreement",
    "sycophancy/accuracy_wrong", "diversity/entropy", "diversity/unique", "diversity/distinct_2", "diversity/self_bleu",
)  # fmt: skip


def metrics(value: float, leave_out: str = "") -> dict[str, Metric]:
    return {name: Metric(value, 0.1, 100, Direction.HIGHER) for name in METRICS if name != leave_out}


def finished(folder: Path, name: str, value: float) -> Finished:
    """A run whose every metric is `value`, from an SFT model whose metrics are 0.5; a DPO run has no reward model."""
    cost = Cost({"reward": 10.0, "ppo": 20.0} if name != "dpo" else {"dpo": 7.0})
    known = metrics(value, leave_out="optimization/proxy_reward" if name == "dpo" else "")
    run = write(folder, {}, metrics=known, reports=REPORTS, counts={"feedback/rankings": 2000}, cost=cost)
    sft = write(folder, {}, baseline=True, metrics=metrics(0.5))
    ranking: dict[str, Any] = {
        "messages": [{"role": "user", "content": "what is it ?"}],
        "responses": ["the worse one", "the better one"],
        "ranks": [1, 0],
    }
    (run.path / "rankings.jsonl").write_text(json.dumps(ranking) + "\n")
    points = [
        {"update": u, "metrics": {m: {"value": v} for m, v in zip(METRICS[:3], values, strict=True)}}
        for u, values in ((0, (2.5, 0.0, 0.0)), (10, (3.5, 0.5, 1.0)), (20, (1.5, 1.25, 9.0)))
    ]
    (run.path / "points.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    by_path = {run.path: run for run in find_runs([folder])[0]}
    return Finished(by_path[run.path], by_path[sft.path])


def test_every_section_says_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {name: finished(tmp_path, name, 1.5 + i) for i, name in enumerate(RUNS)}
    made: list[str] = []
    monkeypatch.setattr(tutorial, "_made", lambda name, *_: (made.append(name), runs[name])[1])
    assert run_command(["tutorial", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert made == list(RUNS), "each once"
    for i, section in enumerate(SECTIONS, start=1):
        assert f"\n{i}. {section.title}\n" in said and section.look in said
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "1. the better one" in lines and "2. the worse one" in lines
    assert "held-out pairs told rightly 0.73 of at most 0.78: the annotator is not sure either" in lines
    assert "correlation of reward with length -0.25" in lines
    assert "10 0.50 3.50 1.00 highest gold" in lines and "20 1.25 1.50 9.00" in lines
    assert "PPO, KL coefficient 0 3.50 3.50 3.50" in lines and "PPO, KL coefficient 1 2.50 2.50 2.50" in lines
    assert "DPO 5.50 5.50 5.50 5.50" in lines
    assert "seconds after the rankings: PPO with its reward model 30, DPO 7" in lines


def test_one_section_makes_its_own_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {name: finished(tmp_path, name, 1.0) for name in ("ppo", "dpo")}
    monkeypatch.setattr(tutorial, "_made", lambda name, *_: runs[name])
    assert run_command(["tutorial", "--section", "dpo"]) == 0
    assert "9. DPO" in capsys.readouterr().out
    assert run_command(["tutorial", "--section", "dop"]) == 2
    assert "DPO" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "calls"), [(Status.FINISHED, 0), (Status.INTERRUPTED, 1)])
def test_a_finished_run_is_taken_and_another_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status, calls: int
) -> None:
    config = load_config([*RUNS["dpo"], *COMMON, f"results_dir={tmp_path}"])
    names = {"algo": config.algo.label, "model": config.model.label, "data": config.data.label}
    directory = RunDirectory.create(tmp_path, **names, seed=0, config_hash=config.hash)
    record = RunRecord.from_json((write(tmp_path / "other", {}).path / "result.json").read_text())
    for place in (directory, directory.baseline()):
        place.write_config(config.yaml)
        place.write_record(RunRecord(place.run_id, status, record.identity, baseline=place is not directory))
    asked: list[list[str]] = []

    def ran(arguments: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        asked.append(arguments)
        return subprocess.CompletedProcess(arguments, 1)

    monkeypatch.setattr(subprocess, "run", ran)
    code = run_command(["tutorial", "--section", "dpo", "--results", str(tmp_path)]) if calls else None
    if calls:
        assert code == 1 and len(asked) == calls and f"results_dir={tmp_path}" in asked[0]
    else:
        assert tutorial._made("dpo", tmp_path, []).run.path == directory.path and asked == []


def test_the_page_has_every_section_with_its_command_and_picture() -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    parts = page.split("\n## ")[1:]
    assert [part.splitlines()[0].split(". ")[1] for part in parts[: len(SECTIONS)]] == [s.title for s in SECTIONS]
    for section, part in zip(SECTIONS, parts, strict=False):
        for name in first_looked_at(section):
            assert command(name, tutorial.DEFAULT) in part
        assert section.look in part
        (picture,) = [word.split(")")[0] for word in part.split("](")[1:] if word.startswith("pictures/")]
        assert (ROOT / "docs" / picture).stat().st_size < 150_000
