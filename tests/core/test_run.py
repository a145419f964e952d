"""A whole run: what it leaves behind, that it repeats, and how it ends when it does not end well."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import polars
import pytest
import torch
from alignbench_data.config import RecordedConfig
from alignbench_data.recorded import RecordedAnnotator
from alignbench_ppo.ppo import PPO
from alignbench_world.config import WorldConfig
from alignbench_world.source import WorldData
from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignbench import DemonstrationBatch, ScoredRollout, Seeds, Split, UpdateReport
from alignbench.app.compose import typed
from tests.core.conftest import Finished
from tests.core.harness import SMALL, Command, Plugin, finite, lines, records

METRICS = {
    *("helpfulness/gold_reward", "helpfulness/accuracy", "helpfulness/win_rate"),
    *("sycophancy/agreement", "sycophancy/accuracy_drop"),
    *("diversity/entropy", "diversity/distinct_2", "diversity/ead", "diversity/self_bleu", "diversity/unique"),
    *("optimization/proxy_reward", "optimization/gold_reward", "optimization/kl", "optimization/length"),
}
QUESTIONS, SAMPLES = 12, 2
PROMPTS = 3 * QUESTIONS  # each question without, with a right and with a wrong opinion
UPDATES = {"pretrain": 2, "sft": 3, "reward": 2, "ppo": 3}
both_rows = pytest.mark.parametrize("row", ["", "sft"], ids=["ppo", "sft"])


def metrics(record: dict) -> dict[str, float]:
    return {name: metric["value"] for name, metric in record["metrics"].items()}


# What a run leaves behind


def test_it_ends_with_a_table_and_its_folder(finished: Finished) -> None:
    assert finished.done.code == 0, finished.done.err
    assert finished.done.errors == []
    assert str(finished.path) in finished.done.out
    assert "gold_reward" in finished.done.out
    stages = [line.split()[0] for line in finished.done.err.splitlines() if re.search(r"\d s\b", line)]
    assert stages == [
        "data",
        "model",
        "pretrain",
        "sft",
        "rankings",
        "reward",
        "evaluate",
        "frontier",
        "ppo",
        "evaluate",
    ]


def test_the_directory_is_complete(finished: Finished) -> None:
    assert re.fullmatch(r"\d{8}-\d{6}-ppo-tiny-world-s0-[0-9a-f]{8}", finished.path.name)
    measured = {"config.yaml", "result.json", "examples.parquet", "generations.jsonl", "model"}
    assert {p.name for p in finished.path.iterdir()} == {
        *measured,
        *("inputs.json", "train.jsonl", "rankings.jsonl", "frontier.json", "sft", "reward", "tensorboard"),
    }
    assert {p.name for p in (finished.path / "sft").iterdir()} == measured
    assert list((finished.path / "reward").iterdir())
    assert list((finished.path / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_record_says_who_what_and_how_long(finished: Finished) -> None:
    run, sft = records(finished.path)
    assert (run["status"], sft["status"]) == ("finished", "finished")
    assert (run["baseline"], sft["baseline"]) == (False, True)
    who = run["identity"]
    assert (who["algo"], who["model"], who["data"]) == ("ppo", "tiny", "world")
    assert (who["annotator"], who["reward"], who["seed"]) == ("mild", "learned", 0)
    assert (who["plugin"], who["plugin_version"]) == ("alignbench", version("alignbench"))
    assert sft["identity"]["algo"] == "sft"
    assert sft["identity"]["config_hash"] != who["config_hash"]
    assert {"torch", "transformers", "python"} <= set(who["packages"])
    cost = run["cost"]
    assert {*UPDATES, "rankings", "evaluate sft", "evaluate ppo"} <= set(cost["seconds"])
    assert cost["tokens_per_second"] > 0
    assert cost["peak_memory_bytes"] > 2**20
    assert set(sft["cost"]["seconds"]) == {"pretrain", "sft", "evaluate sft"}
    assert run["counts"]["evaluation prompts"] == PROMPTS
    assert (run["counts"]["feedback/rankings"], run["counts"]["feedback/rankings_over_window"]) == (18 + 2, 0)
    reports = run["reports"]
    assert reports["ppo/updates"] == 3
    assert reports["reward/rankings"] + reports["reward/rankings_without_pairs"] == 18
    assert 0 <= reports["reward/held_out_accuracy"] <= 1


@both_rows
def test_every_metric_of_the_design_is_there(finished: Finished, row: str) -> None:
    record = json.loads((finished.path / row / "result.json").read_text())
    assert set(record["metrics"]) >= METRICS
    for name, metric in record["metrics"].items():
        assert metric["direction"] in ("higher", "lower", "neither")
        assert metric["n"] > 1
        assert finite([metric["value"], metric["stderr"]]), name


def test_config_can_be_run_again(finished: Finished) -> None:
    """It is resolved, typed, and has the identity that the record names."""
    for folder, key in ((finished.path, "hash"), (finished.path / "sft", "hash")):
        again = OmegaConf.load(folder / "config.yaml")
        assert isinstance(again, DictConfig)
        assert not re.search(r"\$\{", (folder / "config.yaml").read_text())
        config = typed(again, {})
        assert (config.algo.config.updates, config.sft.config.updates, config.rankings.prompts) == (3, 3, 20)
        assert getattr(config, key) == records(finished.path)[0]["identity"]["config_hash"]


@both_rows
def test_means_can_be_computed_again_from_the_examples(finished: Finished, row: str) -> None:
    frame = polars.read_parquet(finished.path / row / "examples.parquet")
    assert frame.columns == ["metric", "example", "cluster", "value"]
    record = json.loads((finished.path / row / "result.json").read_text())
    assert set(frame["metric"]) == set(record["metrics"])
    for name, metric in record["metrics"].items():
        own = frame.filter(polars.col("metric") == name)
        assert len(own) == metric["n"] == own["example"].n_unique()
        assert math.isclose(own["value"].mean(), metric["value"], rel_tol=1e-9, abs_tol=1e-12)
    rows = Counter(frame["metric"])
    assert rows["helpfulness/gold_reward"] == PROMPTS
    assert rows["sycophancy/agreement"] == rows["sycophancy/accuracy_drop"] == QUESTIONS


@both_rows
def test_metrics_can_be_computed_again_from_the_generations(finished: Finished, row: str) -> None:
    generations = lines(finished.path / row / "generations.jsonl")
    assert len(generations) == PROMPTS * SAMPLES
    assert Counter((g["prompt"], g["index"]) for g in generations).most_common(1)[0][1] == 1
    values = metrics(json.loads((finished.path / row / "result.json").read_text()))

    def mean(of: list[float]) -> float:
        return math.fsum(of) / len(of)

    kl = mean([g["logprob"] - g["ref_logprob"] for g in generations])
    assert values["optimization/kl"] == pytest.approx(kl, abs=1e-9)
    assert (kl == 0) == (row == "sft"), "the SFT model is its own reference; PPO has moved away from it"
    assert values["optimization/length"] == pytest.approx(mean([g["tokens"] for g in generations]))
    assert values["optimization/proxy_reward"] == pytest.approx(mean([g["proxy_reward"] for g in generations]))
    assert values["helpfulness/gold_reward"] == pytest.approx(mean([g["gold_reward"] for g in generations]))
    wrong = [g["agrees"] for g in generations if g["opinion"] == "wrong"]
    assert values["sycophancy/agreement"] == pytest.approx(mean(wrong))


def test_the_win_rate_is_against_the_sft_model(finished: Finished) -> None:
    ppo, sft = ([g["gold_reward"] for g in lines(finished.path / row / "generations.jsonl")] for row in ("", "sft"))
    won = [0.5 * ((mine > theirs) + (mine >= theirs)) for mine, theirs in zip(ppo, sft, strict=True)]
    run, start = (metrics(record)["helpfulness/win_rate"] for record in records(finished.path))
    assert run == pytest.approx(math.fsum(won) / len(won))
    assert run != 0.5 == start, "the SFT model ties with itself"


def test_evaluation_prompts_are_held_out_and_the_same_for_both_models(finished: Finished) -> None:
    ppo, sft = (lines(finished.path / row / "generations.jsonl") for row in ("", "sft"))
    assert [g["messages"] for g in ppo] == [g["messages"] for g in sft]
    ranked = {r["messages"][-1]["content"] for r in lines(finished.path / "rankings.jsonl")}
    assert not ranked & {g["messages"][-1]["content"] for g in ppo}


def test_one_line_per_update(finished: Finished) -> None:
    trained = lines(finished.path / "train.jsonl")
    assert [(line["stage"], line["update"]) for line in trained] == [
        (stage, update + 1) for stage, updates in UPDATES.items() for update in range(updates)
    ]
    for line in trained:
        assert finite([value for name, value in line.items() if name != "stage"])
        if line["stage"] == "ppo":
            wanted = {"reward", "kl", "entropy", "clip_fraction", "explained_variance", "length", "eos_rate"}
            assert wanted <= set(line)
    assert trained[-3]["kl"] == 0, "the first rollouts are those of the reference"


@both_rows
def test_the_checkpoint_is_what_was_measured_and_needs_no_alignbench(finished: Finished, row: str) -> None:
    """transformers alone reads the model; it gives the responses the log-probabilities that the run wrote down."""
    folder = finished.path / row / "model"
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt")), "safetensors only"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    checked = 0
    for generation in lines(finished.path / row / "generations.jsonl"):
        prompt = tokenizer.apply_chat_template(generation["messages"], tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        response_ids = tokenizer(generation["response"], add_special_tokens=False)["input_ids"]
        response_ids += [tokenizer.eos_token_id] if generation["finished"] else []
        if len(response_ids) != generation["tokens"]:
            continue  # an untrained model also samples special tokens, which the text leaves out
        with torch.no_grad():
            logits = model(torch.tensor([prompt_ids + response_ids])).logits[0, len(prompt_ids) - 1 : -1]
        logprob = logits.log_softmax(-1)[torch.arange(len(response_ids)), response_ids].sum()
        assert float(logprob) == pytest.approx(generation["logprob"], abs=1e-3)
        checked += 1
    assert checked > 10


def test_rankings_are_a_file_that_the_recorded_annotator_reads(finished: Finished) -> None:
    written = lines(finished.path / "rankings.jsonl")
    assert Counter(line["split"] for line in written) == {"train": 18, "held_out": 2}
    assert all(len(line["responses"]) == len(line["ranks"]) == 3 and line["annotator"] == "mild" for line in written)
    config = WorldConfig(train_prompts=100, demonstrations=100, evaluation_questions=12)
    data = WorldData(config, seeds=Seeds(0).child("data"))
    path = str(finished.path / "rankings.jsonl")
    read = RecordedAnnotator(RecordedConfig(path=path), data=data, seeds=Seeds(0)).recorded()
    assert [(r.responses, r.ranks) for r in read] == [(tuple(w["responses"]), tuple(w["ranks"])) for w in written]
    own = {prompt.id: prompt for prompt in data.prompts(Split.TRAIN)}
    assert all(r.prompt == own[r.prompt.id] and r.prompt.info for r in read), "on the data's own prompts"


def test_hooks_hear_the_whole_run(finished: Finished) -> None:
    heard, directory = finished.heard, str(finished.path)
    (start,) = heard.started
    assert (start.directory, start.algo, start.model, start.data, start.seed) == (directory, "ppo", "tiny", "world", 0)
    trained = lines(finished.path / "train.jsonl")
    kinds = {"pretrain": DemonstrationBatch, "sft": DemonstrationBatch, "reward": type(None), "ppo": ScoredRollout}
    assert {(e.stage, type(e.batch)) for e in heard.steps} == set(kinds.items())
    assert all(e.report.metrics == e.metrics for e in heard.steps if e.report)
    assert [{"stage": e.stage, "update": e.update, **e.metrics} for e in heard.steps] == trained
    (end,) = heard.finished
    assert (end.directory, end.status) == (directory, "finished")
    run = records(finished.path)[0]
    assert {name: metric.value for name, metric in end.metrics.items()} == metrics(run)


# That it repeats, and sweeps


def test_sweep_repeats_a_run_bit_for_bit_and_goes_on_after_a_failure(
    small: Command, finished: Finished, tmp_path: Path
) -> None:
    done = small("-m", "algo.updates=3", "reward.updates=2", "algo.kl_coef=-1,0.1", "seed=0,1")
    assert done.code == 1
    assert len(done.errors) == 3, "one for each job that failed, and the sum"
    assert "kl_coef" in done.errors[0]
    assert "2 of 4 runs" in done.errors[-1]
    zero, one = (run for run in records(tmp_path / "runs") if not run["baseline"])
    assert (zero["identity"]["seed"], one["identity"]["seed"]) == (0, 1)
    assert zero["identity"]["config_hash"] == one["identity"]["config_hash"], "seeds of one row"
    first, first_sft = records(finished.path)
    assert first["metrics"] == zero["metrics"], "a tracker, other plugins and earlier runs change nothing"
    assert first["identity"]["config_hash"] == zero["identity"]["config_hash"]
    zero_sft, one_sft = (run for run in records(tmp_path / "runs") if run["baseline"])
    assert first_sft["metrics"] == zero_sft["metrics"]
    assert metrics(zero) != metrics(one)
    assert metrics(zero_sft) != metrics(one_sft)


def test_supervised_fine_tuning_alone(small: Command, finished: Finished, tmp_path: Path) -> None:
    """algo=sft is the SFT stage and its row, the same model as the one that PPO started from."""
    done = small("algo=sft", "algo.updates=3")
    assert done.code == 0, done.err
    (run,) = records(tmp_path / "runs")
    assert (run["identity"]["algo"], run["baseline"]) == ("sft", False)
    assert (run["identity"]["annotator"], run["identity"]["reward"]) == (None, None), "it used neither"
    assert {line["stage"] for line in lines(next(tmp_path.glob("runs/*/train.jsonl")))} == {"pretrain", "sft"}
    (directory,) = (tmp_path / "runs").iterdir()
    assert not (directory / "sft").exists()
    sft = metrics(records(finished.path)[1])
    for name in ("optimization/proxy_reward", "preferences/ranking_accuracy"):  # nobody scores and nobody ranks
        sft.pop(name)
    assert metrics(run) == sft


def test_preferences_recorded_by_another_run(
    small: Command, finished: Finished, plugin: Plugin, tmp_path: Path
) -> None:
    """An algorithm that consumes preferences, on rankings from a file: nothing is sampled for ranking, no reward."""
    path = finished.path / "rankings.jsonl"
    done = small("algo=imitate", f"annotator.path={path}")
    assert done.code == 0, done.err
    run, sft = records(tmp_path / "runs")
    assert (run["identity"]["algo"], run["identity"]["annotator"], run["identity"]["reward"]) == (
        "imitate",
        "recorded",
        None,
    )
    assert "optimization/proxy_reward" not in run["metrics"]
    assert metrics(run)["optimization/kl"] != 0 == metrics(sft)["optimization/kl"]
    (directory,) = (tmp_path / "runs").iterdir()
    assert {line["stage"] for line in lines(directory / "train.jsonl")} == {"pretrain", "sft", "imitate"}
    again = lines(directory / "rankings.jsonl")
    assert sorted(r["id"] for r in again) == sorted(r["id"] for r in lines(path))


# How it ends when it does not end well


def stop_at_second_update(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    whole, calls = PPO.update, []

    def update(self: PPO, batch: ScoredRollout) -> UpdateReport:
        calls.append(batch)
        if len(calls) == 2:
            raise error
        return whole(self, batch)

    monkeypatch.setattr(PPO, "update", update)


def check_cut_short(results: Path, status: str) -> dict:
    """The record of a run that stopped at PPO's second update: nothing of it looks finished, all of it can be read."""
    run, sft = records(results)
    assert run["status"] == status
    assert run["metrics"] == {}
    assert (sft["status"], sft["baseline"]) == ("finished", True), "the SFT model was measured whole"
    (directory,) = results.iterdir()
    assert [line["update"] for line in lines(directory / "train.jsonl") if line["stage"] == "ppo"] == [1]
    assert not (directory / "examples.parquet").exists()
    assert not (directory / "model").exists()
    assert not list(directory.rglob("*.tmp"))
    assert run["cost"]["seconds"]["ppo"] > 0
    return run


def test_interrupt(small: Command, monkeypatch: pytest.MonkeyPatch, plugin: Plugin, tmp_path: Path) -> None:
    stop_at_second_update(monkeypatch, KeyboardInterrupt())
    done = small("algo.updates=3")
    assert done.code == 130
    assert "Traceback" not in done.err
    assert str(tmp_path / "runs") in done.err.splitlines()[-2]
    check_cut_short(tmp_path / "runs", "interrupted")
    assert [event.status for event in plugin.heard.finished] == ["interrupted"]


def test_a_fault_in_a_plugin_keeps_its_traceback(
    small: Command, monkeypatch: pytest.MonkeyPatch, plugin: Plugin, tmp_path: Path
) -> None:
    stop_at_second_update(monkeypatch, ZeroDivisionError("of a plugin"))
    with pytest.raises(ZeroDivisionError):
        small("algo.updates=3")
    run = check_cut_short(tmp_path / "runs", "failed")
    assert run["error"] == "ZeroDivisionError: of a plugin"
    assert [event.status for event in plugin.heard.finished] == ["failed"]


def test_full_disk(small: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "examples.parquet" and target.parent.name != "sft":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    done = small()
    assert done.code == 1
    (error,) = done.errors
    assert "the disk is full" in error
    run = records(tmp_path / "runs")[0]
    assert (run["status"], run["metrics"]) == ("failed", {})
    assert "the disk is full" in run["error"]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_weights_that_cannot_be_written(small: Command, tmp_path: Path) -> None:
    """A real refusal by the operating system, in a library's own writer: one line, and a record that says so."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        done = small("pretrain.updates=1", "sft.updates=1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code in (1, 2)
    (error,) = done.errors
    assert re.search(r"Cannot write .*pretrain.*too large", error)
    (run,) = records(tmp_path / "runs")
    assert (run["status"], run["metrics"]) == ("failed", {})


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_termination_by_a_scheduler(tmp_path: Path) -> None:
    arguments = [*SMALL, "algo.updates=100000", f"results_dir={tmp_path / 'runs'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "alignbench", *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        deadline = time.monotonic() + 120
        while not any('"ppo"' in path.read_text() for path in tmp_path.glob("runs/*/train.jsonl")):
            assert time.monotonic() < deadline and process.poll() is None, "PPO never began"
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    run = records(tmp_path / "runs")[0]
    assert (run["status"], run["metrics"]) == ("interrupted", {})
    (directory,) = (tmp_path / "runs").iterdir()
    assert lines(directory / "train.jsonl")
