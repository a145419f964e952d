import errno
import json
import math
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars
import pytest
from alignbench_data.recorded import read_rankings

from alignbench import AlignbenchError, ExampleScore, Generation, Message, Opinion, Prompt, Ranking, UserError, Verdict
from alignbench.results.disk.directory import RunDirectory

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def create(folder: Path, **changes) -> RunDirectory:
    names = {"algo": "ppo", "model": "tiny", "data": "world", "seed": 3, "config_hash": "0123456789ab", **changes}
    return RunDirectory.create(folder, now=NOW, **names)


def test_the_name_and_what_follows_a_clash(tmp_path):
    folder = tmp_path / "not" / "there" / "yet"
    names = [create(folder).run_id for _ in range(3)]
    first = "20260102-030405-ppo-tiny-world-s3-01234567"
    assert names == [first, f"{first}-2", f"{first}-3"]


@pytest.mark.parametrize("hostile", ["../../etc", "/abs/path", "a b\n|c", "..", "", "x" * 500, "\x1b[31m"])
def test_a_hostile_name_stays_inside_the_folder(tmp_path, hostile):
    made = create(tmp_path, model=hostile, algo=hostile)
    assert made.path.parent == tmp_path and made.path.is_dir()
    assert made.run_id.isprintable() and not set(made.run_id) & set("/ |\\")


def test_generations_hold_all_that_a_metric_was_computed_from(tmp_path):
    made = create(tmp_path)
    prompt = Prompt("p", (Message("user", "é?"),), Opinion.WRONG, "c", info={"secret": object()})
    judged = Generation(prompt, 0, "line\u2028 \ud800", 3, True, -1.0, -2.0, 0.5, 0.25, Verdict(3.0, True, False))
    bare = Generation(Prompt("q", ()), 1, "", 0, False, 0.0, 0.0, math.nan)
    made.write_generations([judged, bare])
    with (made.path / "generations.jsonl").open(encoding="utf-8") as file:
        first, second = map(json.loads, file)
    assert first == {
        "prompt": "p", "cluster": "c", "opinion": "wrong", "messages": [{"role": "user", "content": "é?"}],
        "index": 0, "response": "line\u2028 \ud800", "tokens": 3, "finished": True, "logprob": -1.0,
        "ref_logprob": -2.0, "entropy": 0.5, "proxy_reward": 0.25, "gold_reward": 3.0, "correct": True, "agrees": False,
    }  # fmt: skip
    assert second["entropy"] is None and second["proxy_reward"] is None and second["gold_reward"] is None


def test_examples_are_one_row_each(tmp_path):
    made = create(tmp_path)
    made.write_examples([ExampleScore("a/b", "e", 0.5, "c"), ExampleScore("a/b", "f", 1.0)])
    frame = polars.read_parquet(made.path / "examples.parquet")
    assert frame.rows() == [("a/b", "e", "c", 0.5), ("a/b", "f", "", 1.0)]
    made.write_examples([])
    assert polars.read_parquet(made.path / "examples.parquet").schema == frame.schema


def test_rankings_can_be_read_back_as_recorded_ones(tmp_path):
    made = create(tmp_path)
    prompt = Prompt("p", (Message("user", "é?"),))
    train, held_out = (
        Ranking(prompt, ("a", "b", "c"), (1, 0, 1), (True, False, True)),
        Ranking(prompt, ("a", "b"), (0, 1), (True, True)),
    )
    made.write_rankings([train], [held_out], annotator="mild")
    assert read_rankings(made.path / "rankings.jsonl") == [
        replace(ranking, annotator="mild") for ranking in (train, held_out)
    ]
    lines = [json.loads(line) for line in (made.path / "rankings.jsonl").read_text().splitlines()]
    assert [(line["split"], line["annotator"]) for line in lines] == [("train", "mild"), ("held_out", "mild")]


def test_training_lines_are_strict_json(tmp_path):
    made = create(tmp_path)
    made.append_training("sft", 1, {"loss": 2.5})
    made.append_training("ppo", 1, {"loss": math.nan})
    lines = (made.path / "train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"stage": "sft", "update": 1, "loss": 2.5},
        {"stage": "ppo", "update": 1, "loss": None},
    ]


def test_the_sft_model_has_a_nested_directory(tmp_path):
    made = create(tmp_path)
    made.baseline().write_config("a: 1")
    assert made.baseline().path == made.path / "sft"
    assert (made.path / "sft" / "config.yaml").read_text() == "a: 1"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_keeps_the_last_whole_file_and_leaves_no_other(tmp_path, monkeypatch, failing):
    made = create(tmp_path)
    made.write_config("old: 1")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, full)
    with pytest.raises(AlignbenchError, match=r"config\.yaml: the disk is full.*results_dir=") as caught:
        made.write_config("new: 1")
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    assert [p.name for p in made.path.iterdir()] == ["config.yaml"]
    assert (made.path / "config.yaml").read_text() == "old: 1"


def test_an_interrupt_while_writing_leaves_no_temporary_file(tmp_path, monkeypatch):
    made = create(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made.write_config("new: 1")
    assert list(made.path.iterdir()) == []


def test_a_results_folder_that_is_a_file_or_lies_under_one(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="file: it is a file, not a folder"):
        create(file)
    with pytest.raises(UserError, match="a part of the path is a file"):
        create(file / "below")


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EACCES, "no permission"), (errno.EROFS, "read-only"), (errno.EIO, os.strerror(errno.EIO))],
)
def test_other_errors_of_the_file_system_are_one_line(tmp_path, monkeypatch, number, said):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=said) as caught:
        create(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_error_of_the_file_system_that_tokenizers_words_itself_is_one_line(tmp_path):
    from tokenizers import Tokenizer, models

    with pytest.raises(UserError, match="Cannot write .*Is a directory"), create(tmp_path / "runs").writing():
        Tokenizer(models.BPE()).save(str(tmp_path))
