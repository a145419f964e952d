"""Tasks of the user's own: folders of lm-eval's YAML files, named in eval.tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from alignbench_suite.capability.evaluation import Tasks
from alignbench_suite.config import HelpfulnessConfig, TasksConfig
from alignbench_suite.helpfulness.evaluation import Helpfulness
from alignbench_suite.task_loading import task_manager

from alignbench import Evaluation, ExampleScore, UserError
from alignbench.app.compose import load_config
from alignbench.store import keys
from tests.suite import ordinary

CHOICE = """
task: {name}
custom_dataset: !function rows.rows
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no"]
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
ROWS = """
from datasets import Dataset

def rows(**_):
    return {"test": Dataset.from_list([{"question": "Is ice cold?", "answer": 0}, {"question": "Is fire cold?", "answer": 1}])}
"""


def folder(path: Path, name: str = "mine") -> Path:
    path.mkdir(exist_ok=True)
    (path / f"{name}.yaml").write_text(CHOICE.format(name=name), encoding="utf-8")
    (path / "rows.py").write_text(ROWS, encoding="utf-8")
    return path


def tasks(names: Sequence[str], include_path: object) -> Tasks:
    return Tasks(TasksConfig(names=list(names), include_path=include_path, path=""))


def scores(made: Evaluation) -> list[ExampleScore]:
    knows = lambda question, choice: float((choice == "yes") == ("ice" in question))  # noqa: E731
    return list(made.evaluate(ordinary.planted(knows)))


def refused(names: Sequence[str], include_path: object) -> str:
    with pytest.raises(UserError) as error:
        tasks(names, include_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_task_of_ones_own_is_asked_by_name_and_every_document_has_its_score(tmp_path: Path) -> None:
    made = tasks(["mine"], str(folder(tmp_path / "tasks")))
    found = scores(made)
    assert {score.metric for score in found} <= {spec.name for spec in made.specs()}
    assert [score.value for score in found if score.metric == "capability/mine_acc"] == [1.0, 1.0]
    assert len({score.example for score in found}) == 2


def test_several_folders_are_read_and_what_changed_is_read_anew(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", "one"), folder(tmp_path / "b", "two")
    made = tasks(["one", "two"], [str(first), str(second)])
    assert {score.metric for score in scores(made)} == {"capability/one_acc", "capability/two_acc"}
    (second / "rows.py").write_text(ROWS.replace('"answer": 1', '"answer": 0'), encoding="utf-8")
    again = [score.value for score in scores(tasks(["two"], str(second)))]
    assert again == [1.0, 0.0]


@pytest.mark.parametrize("changed", ["mine.yaml", "rows.py", "data.json"])
def test_the_sft_models_evaluation_is_shared_only_where_the_same_was_asked(tmp_path: Path, changed: str) -> None:
    """Under the same command: what was stored must not answer for questions that have changed since."""
    mine = folder(tmp_path / "tasks")
    (mine / "data.json").write_text("{}", encoding="utf-8")
    config = load_config(["eval.tasks=[mine]", f"eval.include_path={mine}"])

    def key() -> str:
        made = [tasks(["mine"], str(mine))]
        return keys.of_evaluation(config, made, [], [], sft="", reward="", judge="")

    before = key()
    assert key() == before
    (mine / changed).write_text((mine / changed).read_text() + "\n", encoding="utf-8")
    assert key() != before


def test_what_lies_in_the_folder_of_evaluation_data_counts_too(tmp_path: Path) -> None:
    row = {"id": "q", "question": "Who?", "answer": "Me"}
    file = tmp_path / "pool.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    made = Helpfulness(HelpfulnessConfig(path=str(tmp_path)))
    before = made.fingerprint()
    file.write_text(json.dumps({**row, "answer": "You"}) + "\n", encoding="utf-8")
    assert made.fingerprint() != before


def test_a_run_takes_one_folder_or_a_list(tmp_path: Path) -> None:
    for given in (str(tmp_path), f"[{tmp_path},{tmp_path}]"):
        config = load_config([f"eval.include_path={given}", "eval.tasks=[mine]"])
        chosen = next(chosen.config for chosen in config.evaluations if chosen.label == "tasks")
        assert str(tmp_path) in chosen.include_path
    with pytest.raises(UserError, match="read by none"):
        load_config([f"eval.include_path={tmp_path}", "eval.families=[capability]"])


def test_a_mistyped_task_is_named_with_the_choices_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the ten seconds that it takes to list lm-eval's own.
    monkeypatch.setattr("alignbench_suite.task_loading.task_manager", lambda of, defaults: task_manager(of, False))
    said = refused(["mime"], str(folder(tmp_path / "tasks")))
    assert "no task 'mime'" in said and "Did you mean mine" in said and "eval.include_path has mine" in said


def test_folders_without_a_name_say_what_they_have(tmp_path: Path) -> None:
    assert "Choices: mine" in refused([], str(folder(tmp_path / "tasks")))


def test_bad_folders_and_files_are_named(tmp_path: Path) -> None:
    assert "is not a folder" in refused(["mine"], str(tmp_path / "nowhere"))
    assert "give a folder" in refused(["mine"], {"a": 1})
    (tmp_path / "empty").mkdir()
    assert "has no task" in refused(["mine"], str(tmp_path / "empty"))
    mine = folder(tmp_path / "tasks")
    for text, said in (
        ("task: [unclosed\n", "other.yaml, line"),
        ("- a\n- b\n", "got list"),
        ("include: gone.yaml\ntask: other\n", "other.yaml cannot be read"),
        ("task: mine\n", "stands in"),
        ("task: alignbench_facts\n", "are the suite's"),
    ):
        (mine / "other.yaml").write_text(text, encoding="utf-8")
        assert said in refused(["mine"], str(mine)), text
    (mine / "other.yaml").write_text(CHOICE.format(name="other").replace("rows.rows", "rows.gone"), encoding="utf-8")
    assert "other cannot be loaded from" in refused(["other"], str(mine))
