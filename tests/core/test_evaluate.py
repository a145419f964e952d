"""`alignbench evaluate`: a finished run under other settings, and models that were trained elsewhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars
import pytest

from alignbench import Message, Prompt, Ranking
from alignbench.evaluation import stored
from alignbench.results.disk.directory import RunDirectory
from tests import tiny
from tests.core.conftest import Finished
from tests.core.harness import Command, records
from tests.suite import ordinary

MEASURED = ("helpfulness/", "sycophancy/", "diversity/", "optimization/")


def measured(record: dict[str, object]) -> dict[str, object]:
    return {name: metric for name, metric in record["metrics"].items() if name.startswith(MEASURED)}  # type: ignore[attr-defined]


def test_a_run_evaluated_as_it_was_gives_the_same_numbers(command: Command, finished: Finished, tmp_path: Path) -> None:
    """Weights, reference, reward model, prompts and chances are all found again: to the last bit."""
    done = command(
        "evaluate",
        str(finished.path),
        "eval.samples=2",
        "eval.frontier_samples=16",
        f"results_dir={tmp_path / 'again'}",
    )
    assert done.code == 0, done.err
    before, sft_before = records(finished.path)
    after, sft_after = records(tmp_path / "again")
    assert measured(after) == measured(before)
    assert measured(sft_after) == measured(sft_before)
    assert "optimization/proxy_reward" in measured(after)
    assert after["identity"]["algo"] == "ppo"
    assert after["reused"] == {"model": finished.path.name}
    assert after["status"] == "finished"
    for name in ("generations.jsonl", "sft/generations.jsonl"):
        assert (finished.path / name).read_text() == next((tmp_path / "again").glob(f"*/{name}")).read_text()
    assert "ppo" in done.out and "sft" in done.out


def test_other_settings_of_evaluation_make_another_row(command: Command, finished: Finished, tmp_path: Path) -> None:
    again = tmp_path / "again"
    arguments = ("eval.samples=1", "eval.families=[helpfulness]", "reward@judge=length", f"results_dir={again}")
    done = command("evaluate", str(finished.path), *arguments)
    assert done.code == 0, done.err
    before, after = records(finished.path)[0], records(again)[0]
    assert before["identity"]["config_hash"] != after["identity"]["config_hash"]
    assert {name.partition("/")[0] for name in after["metrics"]} == {"helpfulness"}
    compared = command("compare", str(finished.path), str(again))
    assert "other evaluation settings" in compared.err, "numbers that were measured otherwise are not set side by side"
    forced = command("compare", str(finished.path), str(again), "--force", "--format", "markdown")
    assert "eval.samples=1" in forced.out, "the rows are told apart"


def test_rankings_are_read_back_as_they_were(tmp_path: Path) -> None:
    """Prompts with what the data knows of them, if they are the data's; who ranked, unless it is the run's annotator, who has no name."""
    asked = tuple(Message("user", text) for text in ("a?", "b?", "c?"))
    known = [Prompt(str(i), (message,), cluster="twins", subset="math") for i, message in enumerate(asked[:2])]
    other = Prompt("1", (asked[2],))
    train = (Ranking(known[0], ("a\u2028b\x85c", "d"), (0, 1), (True, False)),)
    held_out = (
        Ranking(known[1], ("a", "b"), (1, 0), (True, True), "Ann"),
        Ranking(other, ("a", "b"), (0, 0), (True, True)),
    )
    RunDirectory(tmp_path).write_rankings(train, held_out, annotator="mild")
    assert stored.rankings(tmp_path, known, annotator="mild") == (train, held_out)
    assert stored.rankings(tmp_path, [], annotator=None)[1][1] == replace(held_out[1], annotator="mild")
    assert stored.rankings(tmp_path / "none", known, annotator="mild") == ((), ())


@pytest.mark.parametrize("line", ["{[", "[]", '{"split": "held_out"}', '{"id": "\udc80"}'])
def test_damaged_rankings_are_refused_in_one_line(
    command: Command, finished: Finished, tmp_path: Path, line: str
) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    path = tmp_path / "run" / "rankings.jsonl"
    number = len(path.read_bytes().splitlines()) + 1
    path.write_bytes(path.read_bytes() + line.encode(errors="surrogateescape") + b"\n")
    done = command("evaluate", str(tmp_path / "run"), "eval=quick")
    assert done.code == 2
    (error,) = done.errors
    assert f"rankings.jsonl, line {number}, is no ranking as a run writes it" in error


def checkpoint(folder: Path) -> Path:
    """A folder as the hub has them: weights, config and a tokenizer with a chat template."""
    tiny.base_model().save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    return folder


def hh(folder: Path) -> Path:
    """Three rows in the format of HH-RLHF."""
    path = folder / "hh.jsonl"
    rows = [f"\\n\\nHuman: {q}?\\n\\nAssistant:" for q in ("a b", "c d", "e")]
    path.write_text("".join(f'{{"chosen": "{row} a", "rejected": "{row} b"}}\n' for row in rows))
    return path


def test_a_model_that_was_trained_elsewhere_gets_a_row(command: Command, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "my-model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    window = ("model.max_prompt_tokens=8", "model.max_response_tokens=6")
    data = ("data=hh", f"data.path={hh(tmp_path)}", "data.held_out_rows=2")
    families = "eval.families=[optimization]"  # its window is too small for questionnaires
    done = command(
        "evaluate", str(folder), *window, *data, families, "eval.samples=2", f"results_dir={tmp_path / 'runs'}"
    )
    assert done.code == 0, done.err
    (record,) = records(tmp_path / "runs")
    assert record["identity"]["algo_label"] == "my-model"
    assert record["identity"]["data"] == "hh"
    assert record["metrics"]["optimization/kl"]["value"] == 0, "it is its own reference"
    assert record["metrics"]["optimization/length"]["n"] == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (directory,) = (tmp_path / "runs").iterdir()
    assert polars.read_parquet(directory / "examples.parquet").height > 0
    assert "algo:" not in (directory / "config.yaml").read_text()
    assert json.loads((directory / "generations.jsonl").read_text().splitlines()[0])["prompt"]
    assert "my-model" in command("compare", str(tmp_path / "runs")).out


@pytest.mark.parametrize(
    ("rows", "asked"),
    [
        ([{"prompt": f"a {letter}"} for letter in "abcdefgh"], 3),
        ([{"prompt": f"a {letter}", "chosen": "a", "rejected": "b"} for letter in "abcdefgh"], 3),
    ],
    ids=["prompts", "pairs"],
)
def test_any_file_serves_as_evaluation_prompts_as_many_as_are_asked_for(
    command: Command, tmp_path: Path, rows: list[dict[str, str]], asked: int
) -> None:
    """Nobody ranks, and nothing is trained: prompts alone are enough."""
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    window = ("model.max_prompt_tokens=8", "model.max_response_tokens=6", "eval.samples=1")
    data = ("data=preferences", f"data.path={file}", "data.held_out_share=0.8", f"eval.questions={asked}")
    families = ("eval.families=[optimization]", f"results_dir={tmp_path / 'runs'}", "data.subset=some")
    done = command("evaluate", str(checkpoint(tmp_path / "my-model")), *window, *data, *families)
    assert done.code == 0, done.err
    assert "  data.subset=some is not used: data.path=" in done.err
    (record,) = records(tmp_path / "runs")
    assert record["metrics"]["optimization/length"]["n"] == asked


def test_a_model_of_ordinary_text_answers_the_world_and_the_questionnaires(command: Command, tmp_path: Path) -> None:
    """The data's prompts as they read in its language, judged by its truth, as many as eval.questions; and what is asked of a model
    that reads ordinary text."""
    folder = tmp_path / "bytes"
    ordinary.model().save_pretrained(folder)
    ordinary.tokenizer().save_pretrained(folder)
    small = ("eval.questions=2", "eval.samples=1", "eval.options.sycophancy.limit=2", "model.max_response_tokens=4")
    families = ("eval.families=[sycophancy,capability]", "eval.options.capability.limit=2")
    done = command("evaluate", str(folder), "data=world", *families, *small, f"results_dir={tmp_path / 'runs'}")
    assert done.code == 0, done.err
    (record,) = records(tmp_path / "runs")
    counts = {name: metric["n"] for name, metric in record["metrics"].items()}
    assert counts["capability/accuracy"] == counts["sycophancy/agreement"] == 2
    assert counts["capability/facts"] == counts["sycophancy/feedback_flip"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "algo=ppo"), "Name a run or a model before the settings"),
        (("evaluate", "RUN", "algo=dpo"), "algo: a run is evaluated as it was trained"),
        (("evaluate", "RUN", "model.path=x"), "model: a run is evaluated as it was trained"),
        (("evaluate", "RUN", "eval=huge"), "quick"),
        (("evaluate", "RUN", "eval.path=nowhere"), "eval.path=nowhere: there is no such folder"),
        (("evaluate", "RUN", "reward@judge=nobody"), "length"),
        (("evaluate", "RUN", "reward@judge=learned"), "choose one that is not"),
        (("evaluate", "no/such/model"), "no/such/model"),
        (("evaluate", "no/such/model", "algo=dpo"), "is evaluated as it is, and not trained"),
        (("evaluate", "no/such/model", "model=tiny"), "path"),
    ],
)
def test_bad_requests(command: Command, finished: Finished, arguments: tuple[str, ...], message: str) -> None:
    done = command(*(str(finished.path) if argument == "RUN" else argument for argument in arguments))
    assert done.code == 2
    (error,) = done.errors
    assert message in error


def test_an_unfinished_run_is_refused(command: Command, finished: Finished, tmp_path: Path) -> None:
    text = (finished.path / "result.json").read_text()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(text.replace('"status": "finished"', '"status": "interrupted"'))
    done = command("evaluate", str(tmp_path / "run"))
    assert done.code == 2
    assert "interrupted, not finished" in done.errors[0]
