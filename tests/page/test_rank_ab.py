"""Two checkpoints judged blind: ties that nobody has to be asked, the win rate of made-up people, and its row in the table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from alignbench.page.rank.session import Session
from alignbench.page.rank.store import Project
from alignbench.records import Direction, Generation, Message, Metric, Prompt
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.record import Identity, RunRecord, Status
from alignbench.results.disk.runs import find_runs
from tests.core.harness import command
from tests.page.rank_kit import Visitor, action_id


def make_run(results: Path, name: str, responses: list[str]) -> None:
    path = results / name
    path.mkdir(parents=True)
    directory = RunDirectory(path)
    directory.write_config(f"algo:\n  component: {name}\n")
    directory.write_generations(
        Generation(
            prompt=Prompt(f"p{i}", (Message("user", f"Question {i}?"),), cluster=f"c{i // 2}"), index=index, response=text, tokens=3,
            finished=True, logprob=-1.0, ref_logprob=-1.0, entropy=0.5, proxy_reward=None, verdict=None,
        )
        for i, text in enumerate(responses)
        for index in (0, 1)
    )  # fmt: skip
    who = Identity(name, "plugin", "1", "tiny", "world", None, None, 0, f"hash of {name}", None, {}, {})
    metrics = {"helpfulness/gold_reward": Metric(1.0, 0.1, 12, Direction.HIGHER)}
    directory.write_record(RunRecord(name, Status.FINISHED, who, metrics=metrics))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "results" / "runs"
    make_run(made, "good", [f"good {i}" if i < 8 else "same" for i in range(12)])
    make_run(made, "poor", [f"poor {i}" if i < 8 else "same" for i in range(12)])
    return made


def test_the_win_rate_of_people_who_prefer_one_becomes_a_row(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = command(capsys, "rank", "ab", "versus", "good", "poor", "--people", "2")
    assert made.code == 0 and "same response to 4 more prompts" in made.out, made.err
    early = command(capsys, "rank", "result", "versus")
    assert early.code == 2 and "Nobody" in early.errors[0]
    project = Project(results.parent / "rank" / "versus")
    places = set()
    for name, taste in (("Ann", "good"), ("Ben", "")):  # Ann prefers the good one, Ben finds all alike
        person = Session(project, project.annotator(name))
        while before := person.state().before:
            shown = [before.item.responses[k] for k in before.shown]
            places.add(shown[0].split()[0])
            ranks = [int(taste not in text) for text in shown]
            person.act({"id": action_id(), "kind": "answer", "item": before.number, "ranks": ranks})
    assert places == {"good", "poor"}, "either may stand first"
    done = command(capsys, "rank", "result", "versus")
    assert done.code == 0 and "human_win_rate" in done.out, done.err
    runs, broken = find_runs([results])
    assert not broken
    (row,) = (run.record for run in runs if "helpfulness/human_win_rate" in run.record.metrics)
    metric = row.metrics["helpfulness/human_win_rate"]
    assert metric.value == pytest.approx((8 * 0.75 + 4 * 0.5) / 12)  # Ann 1, Ben a half; what is the same ties
    assert (
        (metric.n, metric.clusters) == (12, 6)
        and metric.low < metric.value < metric.high
        and math.isfinite(metric.high)
    )
    assert row.identity.algo_label == "good over poor, by people" and row.reused == {"model": "good"}
    compared = command(capsys, "compare", str(results))
    assert (compared.code == 0 and "good over poor" in compared.out.replace("\n", " ")) or "by people" in compared.out
    board = Visitor(results.parent).http.get("/rank/versus/board").json()
    assert board["win_rate"]["value"] == pytest.approx(metric.value) and "equal" not in board["about"]
    assert Visitor(results.parent).post("/rank/versus/train", {"algo": "dpo"}).status_code == 400


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [("good", "gone", "cannot be read"), ("good", "good", "same response to every prompt"), ("good", "broken", "damaged"), ("good", "half", "damaged"), ("good", "other", "no prompt in common")],
)  # fmt: skip
def test_what_cannot_be_compared(
    results: Path, capsys: pytest.CaptureFixture[str], first: str, second: str, words: str
) -> None:
    make_run(results, "broken", ["x"])
    (results / "broken" / "generations.jsonl").write_text("{}\n")
    make_run(results, "half", ["x"])
    whole = json.loads((results / "half" / "generations.jsonl").read_text().splitlines()[0])
    (results / "half" / "generations.jsonl").write_text(json.dumps({k: whole[k] for k in ("prompt", "index")}) + "\n")
    make_run(results, "other", ["x"])
    text = (results / "other" / "generations.jsonl").read_text().replace("Question", "Riddle")
    (results / "other" / "generations.jsonl").write_text(text)
    done = command(capsys, "rank", "ab", "versus", first, second)
    assert done.code == 2 and words in done.errors[0], done.err
    assert not (results.parent / "rank" / "versus").exists()


def test_so_many_prompts_are_drawn(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "rank", "ab", "few", "good", "poor", "--prompts", "5").code == 0
    project = Project(results.parent / "rank" / "few")
    equal = json.loads((project.settings.about or {})["equal"])
    assert project.count() + len(equal) == 5
