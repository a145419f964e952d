"""`alignbench export`: a finished run's model as a folder of its own, whole or absent."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from filelock import FileLock
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from alignbench import Policy
from alignbench.app.compose import load_config
from alignbench.commands.export import lock_of
from alignbench.results.shown.model_card import model_card
from tests import tiny
from tests.core.conftest import Finished
from tests.core.harness import Command


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_finished_run_and_its_sft_model(command: Command, finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "out" / ".policy.partial").mkdir(parents=True)  # of one that was killed
    (tmp_path / "out" / ".policy.partial" / "model.safetensors").touch()
    done = command("export", str(finished.path), "--merged", "--output", "out/policy")
    assert done.code == 0, done.err
    assert "out/policy: loaded again, the log-probabilities of" in done.out
    done = command("export", "sft", "--merged", "--results-dir", str(finished.path))
    assert done.code == 0, done.err
    sft = tmp_path / "results" / "exports" / f"{finished.path.name}-sft-merged"
    for folder, source in ((tmp_path / "out" / "policy", finished.path), (sft, finished.path / "sft")):
        assert {"config.json", "generation_config.json", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
        assert [*folder.parent.iterdir()] == [folder], "nothing unfinished stays beside it"
        kept, written = weights(source / "model"), weights(folder)
        assert kept.keys() == written.keys() and all(torch.equal(kept[name], written[name]) for name in kept)


def test_an_export_has_a_model_card(command: Command, finished: Finished, tmp_path: Path) -> None:
    done = command("export", str(finished.path), "--merged", "--output", "out")
    assert done.code == 0, done.err
    text = (tmp_path / "out" / "README.md").read_text()
    known = ModelCard(text).data.to_dict()
    assert known["library_name"] == "transformers" and "base_model" not in known, "from scratch: the hub has no base"
    assert known["tags"] == ["alignbench", "alignment", "ppo"]
    record = json.loads((finished.path / "result.json").read_text())
    kl = record["metrics"]["optimization/kl"]["value"]
    assert re.search(rf"optimization/kl .*\| 0\.00.*\| {kl:.2f}", text), (
        "beside that of the SFT model, with its interval"
    )
    assert "±" in text and f"torch {record['identity']['packages']['torch']}" in text
    (made,) = re.findall(r"^alignbench algo=ppo .*", text, re.MULTILINE)
    again = load_config(shlex.split(made)[1:])
    assert again.hash == record["identity"]["config_hash"], "the command is that of the same run"


def test_what_a_card_says_of_names_is_literal(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    record = json.loads((run / "result.json").read_text())
    record["identity"] |= {"model": "m\n---\nlicense: mit", "data": "<img src=x>|[a](http://b)"}
    (run / "result.json").write_text(json.dumps(record))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"^model:\n", "model:\n  path: 'org/base'\n", config, flags=re.MULTILINE))
    text = model_card(run, "key: |\n  ````\n  <b>", ["alignbench", "a=b c"], merged=False)
    known = ModelCard(text).data.to_dict()
    assert known["base_model"] == "org/base" and known["library_name"] == "peft" and "license" not in known
    prose = text.partition("`````")[0].partition("\n---\n")[2]
    assert "<img" not in prose and "](http://b)" not in prose
    assert "\n---\n" not in prose
    assert "`````\nkey: |\n  ````\n  <b>\n`````" in text
    assert "alignbench 'a=b c'" in text


def test_two_at_once_do_not_write_over_each_other(command: Command, finished: Finished, tmp_path: Path) -> None:
    lock = lock_of(Path("out/policy"))
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        done = command("export", str(finished.path), "--merged", "--output", f"{tmp_path}/out/policy")
    assert done.code == 2 and "out/policy is being written by another process" in done.errors[0]


def test_who_waits_at_the_lock_holds_the_one_that_others_see(
    command: Command, finished: Finished, tmp_path: Path
) -> None:
    """A lock that were removed when an export ends would be another file for whoever comes later."""
    lock = lock_of(Path("out/policy"))
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as waiting:
        assert command("export", str(finished.path), "--merged", "--output", "out/policy").code == 0
        assert os.path.samestat(os.fstat(waiting.fileno()), lock.stat())


def test_a_file_system_without_locks_is_told(
    command: Command, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise NotImplementedError("flock")

    monkeypatch.setattr(FileLock, "acquire", none)
    done = command("export", str(finished.path), "--merged", "--output", "out/policy")
    assert done.code == 2 and "has no locks (flock): set ALIGNBENCH_CACHE" in done.errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN",), "--merged (one ordinary model) or --adapter"),
        (("RUN", "--merged", "--adapter"), "--merged (one ordinary model) or --adapter"),
        (("no/such/run", "--merged"), "no/such/run is no run's directory"),
        (("RUN", "--adapter", "--output", "out"), "no adapter: use --merged"),
        (("RUN", "--merged", "--output", "full"), "full exists already"),
        (("RUN", "--merged", "--output", "full/file"), "full/file exists already"),
        (("RUN", "--merged", "--output", "full/file/out"), "--output"),
    ],
)
def test_bad_requests(
    command: Command, finished: Finished, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = command("export", *(str(finished.path) if argument == "RUN" else argument for argument in arguments))
    assert done.code == 2
    (error,) = done.errors
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["full"]


def test_runs_that_have_nothing_to_export(command: Command, finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.path, run, ignore=shutil.ignore_patterns("model"))
    done = command("export", "run/sft", "--merged")
    assert done.code == 2 and "its weights are gone" in done.errors[0]
    text = (run / "result.json").read_text()
    (run / "result.json").write_text(text.replace('"status": "finished"', '"status": "failed"'))
    for name in ("run", "run/sft"):
        done = command("export", name, "--merged")
        assert done.code == 2 and "failed, not finished" in done.errors[0]


@pytest.mark.parametrize("mean", [0.5, float("nan")])
def test_an_export_that_computes_something_else_is_not_kept(
    command: Command, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: float
) -> None:
    export = HFPolicy.export
    monkeypatch.setattr(HFPolicy, "export", lambda *given, **how: dataclasses.replace(export(*given, **how), mean=mean))
    done = command("export", str(finished.path), "--merged", "--output", "out/policy")
    assert done.code == 1
    assert f"differ from the policy's by {mean:g} nats a token" in done.errors[0]
    assert [*(tmp_path / "out").iterdir()] == []


def test_a_policy_that_does_not_say_how_is_refused(
    command: Command, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HFPolicy, "export", Policy.export)
    done = command("export", str(finished.path), "--merged", "--output", "out/policy")
    assert done.code == 2 and "cannot be exported" in done.errors[0]


def test_a_run_with_adapters(command: Command, tmp_path: Path) -> None:
    """From the adapter in the run's folder and its base: the two exports are one policy."""
    tiny.base_model().save_pretrained("base")
    tiny.letters().save_pretrained("base")
    rows = "".join(
        f'{{"chosen": "\\n\\nHuman: {q}?\\n\\nAssistant: a b", "rejected": "\\n\\nHuman: {q}?\\n\\nAssistant: c"}}\n'
        for q in ("a b", "c d", "e", "f", "g", "h")
    ).replace("\n\n", "\\n\\n")
    Path("hh.jsonl").write_text(rows)
    model = ("model=hf", "model.path=base", "model.dtype=float32", "model.lora_rank=2", "model.max_prompt_tokens=8")
    rest = ("data=hh", "data.path=hh.jsonl", "data.held_out_rows=2", "algo=sft", "algo.updates=2")
    done = command(*model, "model.max_response_tokens=6", *rest, "eval.families=[optimization]", "eval.samples=2")
    assert done.code == 0, done.err
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    for kind, file in (("merged", "model.safetensors"), ("adapter", "adapter_model.safetensors")):
        done = command("export", str(run), f"--{kind}", "--output", kind)
        assert done.code == 0, done.err
        assert (tmp_path / kind / file).is_file()
    kept, written = (
        load_file(folder / "adapter_model.safetensors") for folder in (run / "adapter", tmp_path / "adapter")
    )
    assert kept.keys() == written.keys() and all(torch.equal(kept[name], written[name]) for name in kept)
    shutil.rmtree("base")
    done = command("export", str(run), "--merged", "--output", "again")
    assert done.code == 2 and "base" in done.errors[0]
