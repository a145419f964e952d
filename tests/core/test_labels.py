"""Responses that were called good or bad, without a pair: who learns from them, and who refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from alignbench_dpo.config import KTOConfig

from alignbench import Labelled, PreferencePair, Seeds
from alignbench.pipeline.experience import label_data, labelled_batches, labels_of_pairs
from tests import tiny
from tests.core.harness import Command, Plugin, lines, records

PEOPLE = (
    *("data=people", "sft.updates=2", "sft.batch_size=8", "algo.batch_size=4", "algo.micro_batch_size=2"),
    *("eval.samples=1", "eval.families=[optimization]", "model.hidden_size=16", "model.num_layers=1"),
)


def test_kto_learns_from_labels(command: Command, plugin: Plugin, tmp_path: Path) -> None:
    """Those of the twelve training prompts, of which every third response is bad; nobody ranks."""
    done = command(*PEOPLE, "data.form=labels", "algo=kto", "algo.updates=3")
    assert done.code == 0, done.err
    run, sft = records(tmp_path / "runs")
    assert (run["identity"]["algo"], run["identity"]["annotator"]) == ("kto", None), "nobody ranked"
    counts = {
        name: run["counts"][f"feedback/{name}"]
        for name in ("labelled", "labelled_over_window", "labelled_good", "labelled_bad")
    }
    assert counts == {"labelled": 12, "labelled_over_window": 0, "labelled_good": 8, "labelled_bad": 4}
    assert "8 responses are called good and 4 bad" in done.err
    assert run["reports"]["kto/samples"] == 3 * 8.0, "twice algo.batch_size an update"
    assert not list(tmp_path.glob("runs/*/rankings.jsonl"))
    assert run["metrics"]["optimization/kl"]["value"] != 0 == sft["metrics"]["optimization/kl"]["value"]


def test_a_killed_run_goes_on_with_the_same_labels(command: Command, plugin: Plugin, tmp_path: Path) -> None:
    options = (*PEOPLE, "data.form=labels", "algo=kto", "algo.updates=4", "cache=false")
    assert command(*options, f"results_dir={tmp_path / 'whole'}").code == 0
    plugin.raise_at = ("kto", 2, KeyboardInterrupt())
    assert command(*options).code == 130
    plugin.raise_at = None
    assert command(*options).code == 0
    (whole,), (again,) = (list(tmp_path.glob(f"{folder}/*/train.jsonl")) for folder in ("whole", "runs"))
    timeless = [[{k: v for k, v in line.items() if k != "seconds"} for line in lines(path)] for path in (whole, again)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["algo=dpo"], ["algo=dpo learns from pairs", "data=people has labels", "no pairs", "kto"]),
        (["algo=simpo"], ["algo=simpo learns from pairs", "kto"]),
        (["algo=ppo"], ["reward=learned learns from pairs", "kto"]),
    ],
    ids=str,
)
def test_who_learns_from_pairs_refuses(
    command: Command, plugin: Plugin, arguments: Sequence[str], words: Sequence[str]
) -> None:
    done = command("data=people", "data.form=labels", *arguments)
    (error,) = done.errors
    assert done.code == 2 and "Traceback" not in done.err
    assert [word for word in words if word not in error] == []


def test_labels_of_evaluation_prompts_teach_nothing(command: Command, plugin: Plugin) -> None:
    (error,) = command(*PEOPLE, "data.form=held_out", "algo=kto").errors
    assert "All 4 labels of data=people are of evaluation prompts" in error


def test_kto_takes_pairs_apart_where_there_are_no_labels(command: Command, plugin: Plugin, tmp_path: Path) -> None:
    done = command(*PEOPLE, "algo=kto", "algo.updates=2")
    assert done.code == 0, done.err
    run = records(tmp_path / "runs")[0]
    assert [run["counts"][f"feedback/{name}"] for name in ("pairs", "labelled_good", "labelled_bad")] == [12, 12, 12]


def test_pairs_stay_together_and_come_in_the_order_of_pairs() -> None:
    """A batch holds both responses of each of its pairs, the good one first."""
    policy = tiny.scratch()
    policy.freeze_reference()
    pairs = [PreferencePair(tiny.prompt("a b"), f"c {letter}", f"d {letter}") for letter in "abcdefgh"]
    config = KTOConfig(batch_size=3)
    data = labels_of_pairs(policy, pairs, config)
    batches = list(labelled_batches(data, config, updates=4, seeds=Seeds(0)))
    words = [
        policy.tokenizer.batch_decode([row[:2].tolist() for row in batch.sequences.response_ids]) for batch in batches
    ]
    assert [len(batch) for batch in batches] == [6] * 4
    for batch, said in zip(batches, words, strict=True):
        assert batch.good.tolist() == [True, False] * 3
        assert [text[0] for text in said] == ["c", "d"] * 3
        assert [text[-1] for text in said[::2]] == [text[-1] for text in said[1::2]]
    (again,) = labelled_batches(data, config, updates=4, seeds=Seeds(0), start=3)
    assert torch.equal(again.sequences.response_ids, batches[3].sequences.response_ids)


def test_labels_that_do_not_fit_are_counted() -> None:
    policy = tiny.scratch()
    policy.freeze_reference()
    long = tiny.prompt("a b c d e f g h a b")
    given = [
        Labelled(tiny.prompt("a"), "b", good=True),
        Labelled(long, "b", good=False),
        Labelled(tiny.prompt("c"), "a b c d e f g", good=False),
        Labelled(tiny.prompt("c"), "a b", good=False, finished=False),
    ]
    data = label_data(policy, given, KTOConfig())
    assert data.counts == {
        "labelled": 4,
        "labelled_over_window": 1,
        "labelled_truncated": 1,
        "labelled_good": 1,
        "labelled_bad": 2,
    }
    assert data.rows.good.tolist() == [True, False, False]
    assert data.rows.sequences.response_mask.sum(1).tolist() == [2, 6, 2]
    assert data.rows.ref_logprobs is not None and bool((data.rows.ref_logprobs < 0).all())


def test_a_model_from_scratch_beside_ordinary_text(command: Command, plugin: Plugin, tmp_path: Path) -> None:
    for arguments in (("data=people",), ("plan", "data=people")):
        done = command(*arguments, "data.form=ordinary")
        (error,) = done.errors
        assert done.code == 2 and "Traceback" not in done.err
        for word in ("model=tiny", "ordinary text", "model=smollm2", "model=hf model.path=", "data=world"):
            assert word in error


def test_what_pairs_taught_is_measured_on_those_held_out(command: Command, plugin: Plugin, tmp_path: Path) -> None:
    """The rankings of the four evaluation prompts: DPO learns that a word with an a is better, and is measured so again."""
    settings = [option for option in PEOPLE if not option.startswith("eval.")]
    measured = ("eval.families=[optimization,preferences]", "eval.samples=1")
    options = (*measured, "algo.learning_rate=0.02", "algo.updates=12")
    done = command(*settings, *options, "algo=dpo")
    assert done.code == 0, done.err
    run, sft = (record["metrics"] for record in records(tmp_path / "runs"))
    assert {name for name in sft if name.startswith("preferences/")} == {"preferences/ranking_accuracy"}
    assert run["preferences/accuracy"]["value"] == 1.0 and run["preferences/margin"]["value"] > 0
    assert (run["preferences/accuracy"]["n"], run["preferences/accuracy"]["clusters"]) == (4, 4)
    assert 0 < run["preferences/calibration_error"]["value"] < 0.5
    (path,) = (tmp_path / "runs").iterdir()
    assert command("evaluate", str(path), *measured, f"results_dir={tmp_path / 'again'}").code == 0
    again = records(tmp_path / "again")[0]["metrics"]
    assert {name: again[name]["value"] for name in run} == {name: run[name]["value"] for name in run}
