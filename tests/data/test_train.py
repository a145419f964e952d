"""What people have trains SFT, DPO, and PPO through a reward model: a tiny model of ordinary text, nothing said but the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignbench.app.compose import load_config
from alignbench.pipeline.run import run
from tests.core.harness import command, lines, records
from tests.data import writing
from tests.data.inputs import INPUTS, QUESTIONS
from tests.suite import ordinary


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights and its tokenizer of bytes, as a folder."""
    folder = tmp_path_factory.mktemp("model")
    ordinary.model().save_pretrained(folder)
    ordinary.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def small(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "cache"))
    parts = ("sft", "reward", "algo")
    return [
        *("model=hf", f"model.path={model}", "model.dtype=float32", "model.lora_rank=2"),
        *("model.max_prompt_tokens=96", "model.max_response_tokens=16"),
        *(f"{part}.{name}=4" for part in parts for name in ("batch_size", "micro_batch_size")),
        *("sft.updates=1", "eval.samples=1", "eval.families=[optimization,preferences]"),
        f"results_dir={tmp_path / 'runs'}",
    ]


@pytest.mark.parametrize("name", INPUTS)
def test_ordinary_inputs_train(name: str, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = INPUTS[name](tmp_path, QUESTIONS)
    held_out = 4 if "splits" in name else 2
    for algo in (["algo=dpo"], ["algo=ppo", "algo.epochs=1", "algo.minibatches=1", "reward.updates=1"]):
        run(load_config([*small, "data=preferences", f"data.path={path}", *algo, "algo.updates=1"]))
    runs = {record["identity"]["algo"]: record for record in records(tmp_path / "runs")}
    assert set(runs) == {"dpo", "ppo", "sft"}
    for algo in ("dpo", "ppo"):
        assert (runs[algo]["status"], runs[algo]["identity"]["annotator"]) == ("finished", "recorded")
        assert runs[algo]["metrics"]["preferences/accuracy"]["n"] == held_out
    assert runs["dpo"]["counts"]["feedback/pairs"] == len(QUESTIONS) - held_out
    assert runs["ppo"]["reports"]["reward/held_out_pairs"] == held_out
    assert "optimization/proxy_reward" in runs["ppo"]["metrics"]
    stages = {line["stage"] for path in tmp_path.glob("runs/*/train.jsonl") for line in lines(path)}
    assert stages == {"sft", "reward", "dpo", "ppo"}


def test_labels_train_kto_and_nothing_that_needs_pairs(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": p, "completion": text, "label": good}
        for p, better, worse in QUESTIONS
        for text, good in ((better, True), (worse, False))
    ]
    data = ("data=preferences", f"data.path={writing.lines(tmp_path / 'x.jsonl', rows[:-1])}")
    done = command(capsys, *small, *data, "data.subset=some", "algo=kto", "algo.updates=2")
    assert done.code == 0, done.err
    assert "  data.subset=some is not used: data.path=" in done.err
    found = records(tmp_path / "runs")[0]
    assert found["status"] == "finished"
    assert found["counts"]["feedback/labelled_good"] + found["counts"]["feedback/labelled_bad"] < len(rows), (
        "some are held out"
    )
    assert {line["stage"] for path in tmp_path.glob("runs/*/train.jsonl") for line in lines(path)} == {"sft", "kto"}
    for algo in ("dpo", "ppo"):
        (error,) = command(capsys, *small, *data, f"algo={algo}").errors
        assert "labels of single responses and no pairs: choose algo=bco|kto" in error


def test_a_model_of_the_worlds_language_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = INPUTS["1 strings"](tmp_path, QUESTIONS)
    done = command(capsys, "data=preferences", f"data.path={path}", "algo=dpo", f"results_dir={tmp_path / 'runs'}")
    (error,) = done.errors
    assert done.code == 2 and "ordinary text" in error and "model=hf model.path=" in error
