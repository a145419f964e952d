"""`alignbench rank`: from a model or a file to a project, and out again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignbench.page.rank.session import Session
from alignbench.page.rank.store import Project
from tests.core.harness import SMALL, command
from tests.page.rank_kit import action_id

ITEM = {"prompt": "Which?", "responses": ["a", "b", "c"], "ranks": [1, 2, 2]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "rank"


def test_a_models_responses_become_items(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = command(
        capsys, "rank", "sample", "first", "--prompts", "6", "--responses", "3", "--gold", "2", "--scales", *SMALL
    )
    assert done.code == 0, done.err
    project = Project(folder / "first")
    items = list(project.items().values())
    assert len(items) == 8 and sum(bool(item.gold) for item in items) == 2
    assert all(2 <= len(set(item.responses)) == len(item.responses) <= 3 for item in items), "no response twice"
    assert project.settings.overrides == SMALL and project.settings.scales
    again = command(capsys, "rank", "sample", "first", *SMALL)
    assert again.code == 2 and "already" in again.errors[0]


def test_a_file_becomes_items_and_rankings_come_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps(ITEM) + "\n\n" + json.dumps({**ITEM, "prompt": "Who?", "gold": True}) + "\n")
    assert command(capsys, "rank", "import", "mine", str(file), "--people", "1", "algo=dpo").code == 0
    assert command(capsys, "rank", "import", "mine", str(file)).code == 0, "more of them"
    refused = command(capsys, "rank", "import", "mine", str(file), "seed=1")
    assert refused.code == 2 and "keeps its settings" in refused.errors[0]
    project = Project(folder / "mine")
    assert [item.gold for item in project.items().values()] == [(), (0, 1, 1)] * 2
    empty = command(capsys, "rank", "export", "mine", "out.jsonl")
    assert empty.code == 2 and "Nobody" in empty.errors[0]
    person = Session(project, project.annotator("Ann"))
    state = person.state()
    assert state.before is not None
    person.act({"id": action_id(), "kind": "answer", "item": state.before.number, "ranks": [0, 1, 2]})
    done = command(capsys, "rank", "export", "mine", "out.jsonl", "--hash-names")
    assert done.code == 0 and "1 rankings" in done.out
    assert json.loads(Path("out.jsonl").read_text())["annotator"] != "Ann"
    links = command(capsys, "rank", "links", "mine", "Ann", "Ben", "--url", "http://host:8400/")
    assert links.out.count("http://host:8400/annotate/") == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 1: not JSON"), ("[]", "an object"), ('{"responses": ["a", "b"]}', "'prompt' or 'messages'"),
        (json.dumps({**ITEM, "responses": ["a"]}), "1 responses"), (json.dumps({**ITEM, "responses": list("abcdefghij")}), "10 responses"),
        (json.dumps({**ITEM, "responses": [1, 2]}), "list of texts"), (json.dumps({**ITEM, "responses": ["x", "x"]}), "are the same"), (json.dumps({**ITEM, "gold": True, "ranks": [1, 1, 1]}), "not all the same"),
        (json.dumps({**ITEM, "gold": True, "ranks": [1, 2]}), "another number"), (json.dumps({**ITEM, "finished": [True]}), "another number"),
        (json.dumps({"messages": [{"role": "assistant", "content": "x"}], "responses": ["a", "b"]}), "must be the user's"),
        ("", "holds no item"),
    ],
)  # fmt: skip
def test_a_file_that_holds_something_else(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, words: str
) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(row)
    done = command(capsys, "rank", "import", "mine", str(file))
    assert done.code == 2 and words in done.errors[0] and not (folder / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sample", "../x"), "no project's name"), (("sample", "x", "--responses", "10"), "2 to 9"), (("sample", "x", "--run", "gone"), "no run's directory"),
        (("sample", "x", "algo=ppos"), "ppos"), (("sample", "x", "--people", "0"), "people=0"), (("export", "x", "y.jsonl"), "no project x"),
        (("links", "x", "Ann"), "no project x"), (("export", "x", "y.jsonl", "seed=1"), "does not know seed=1"), (("sample", "x", "--odd"), "does not know --odd"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    done = command(capsys, "rank", *arguments)
    assert done.code == 2 and words in done.errors[0]


def test_a_runs_own_policy_responds(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "algo=sft", "eval.families=[optimization]", "results_dir=results/runs", *SMALL).code == 0
    (run,) = (path.parent for path in Path("results/runs").glob("*/result.json"))
    done = command(capsys, "rank", "sample", "second", "--run", run.name, "--prompts", "3", "--responses", "2", *SMALL)
    assert done.code == 0, done.err
    assert Project(folder / "second").count() == 3
