"""Every mistake gets one line that says what to do; nothing that is half-written looks finished."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import alignbench_hf.build
import pytest
import torch
from transformers import AutoModelForCausalLM

from alignbench.plugins import Kind, registry
from tests.core.harness import Command, Done, Plugin, lines, records


def one_line(done: Done, code: int, *words: str) -> str:
    """The one line of a refusal, which holds all of the words."""
    assert done.code == code, done.err
    (error,) = done.errors
    assert done.err.splitlines()[-1] == error, "it is the last thing that is said"
    assert "Traceback" not in done.err
    for word in words:
        assert word in error
    return error


def nothing_looks_finished(results: Path) -> None:
    found = [record["status"] for record in records(results)]
    assert set(found) <= {"failed"}, found


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test where a model is built."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was built")

    for name in ("build_scratch", "build_pretrained"):
        monkeypatch.setattr(alignbench_hf.build, name, refuse)


# What is seen before anything runs: one line on stderr, and no folder

# Every installed algorithm, in order: a third party's may be among them.
ALGORITHMS = ", ".join(component.name for component in registry().of(Kind.ALGORITHM))
ALGO_KEYS = ("adam_eps", "batch_size", "kl_coef", "learning_rate")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], ["'train'", "compare", "plugins", "--help"]),
        (["plugin"], ["Did you mean 'plugins'?"]),
        (["--sweep"], ["--sweep", "--help"]),
        (["algo=pppo"], ["Unknown algo 'pppo'", "Did you mean 'ppo'?", f"Choices: {ALGORITHMS}."]),
        (["model=large"], ["Unknown model 'large'", "smollm2", "tiny"]),
        (["data=hhh"], ["Did you mean 'hh'?", "world"]),
        (["annotator=honets"], ["Did you mean 'honest'?", "mild", "recorded", "sycophantic"]),
        (["reward=golden"], ["Unknown reward 'golden'", "Did you mean 'gold'?", "learned"]),
        (["eval=all"], ["Unknown eval 'all'", "quick", "standard"]),
        (["tracker=paper"], ["Unknown tracker 'paper'", "none", "tensorboard"]),
        (["algo@sft=nope"], ["Unknown algo 'nope'", "sft"]),
        (["sft=sft"], ["algo@sft=", f"Choices: {ALGORITHMS}."]),
        (["algo=null"], ["algo=ppo", "--help"]),
        (["~algo"], ["algo=ppo", "--help"]),
        (["algo.klcoef=1"], ["Unknown key 'klcoef' in algo", "Did you mean 'kl_coef'?", *ALGO_KEYS]),
        (["+algo.foo=1"], ["Unknown key 'foo' in algo", *ALGO_KEYS]),
        (["sede=1"], ["Unknown key 'sede'", "Did you mean 'seed'?"]),
        (["+sede=1"], ["Unknown key 'sede'", "Did you mean 'seed'?"]),
        (["rankings.prompt=1"], ["Unknown key 'prompt' in rankings", "Did you mean 'prompts'?"]),
        (["eval.options.diversity.x=1"], ["Unknown key 'x' in eval.options.diversity", "self_bleu_prompts"]),
        (["eval.options.nope.x=1"], ["Unknown evaluation 'nope' in eval.options", "diversity, exact, helpfulness"]),
        (["budget.nope=1"], ["Unknown key 'nope' in budget", "Choices: samples, seconds, tokens."]),
        (["judge.nope=1"], ["judge.nope: no judge is chosen", "reward@judge=<name>"]),
        (["hydra.nope=1"], ["Unknown key 'nope' in hydra."]),
        (["+eval.options.x.y=1"], ["Unknown evaluation 'x' in eval.options", "diversity"]),
        (["eval.families=[nope]"], ["Unknown evaluation 'nope'", "diversity, exact, helpfulness"]),
        (["eval.families=[diversity,diversity]"], ["twice", "eval.families"]),
        (["seed=one"], ["seed=one", "whole number"]),
        (["algo.kl_coef=high"], ["algo.kl_coef=high must be a number, 0 to 10000."]),
        (["algo.whiten_rewards=perhaps"], ["algo.whiten_rewards=perhaps", "true or false"]),
        (["seed=0,1"], ["seed=0,1", "--multirun"]),
        (["algo.kl_coef=["], ["algo.kl_coef=[ cannot be read", "quotes"]),
        (["algo.batch_size=0"], ["algo.batch_size=0 must be 1 to 1e6"]),
        (["pretrain.micro_batch_size=-1"], ["pretrain.micro_batch_size=-1"]),
        (["algo.batch_size=16", "algo.samples_per_prompt=3"], ["batch_size=16", "multiple of samples_per_prompt=3"]),
        (["algo.batch_size=16", "algo.minibatches=3"], ["algo.batch_size=16", "multiple of algo.minibatches=3"]),
        (["algo.kl_coef=-1"], ["algo.kl_coef=-1.0 must be 0 to 10000"]),
        (["algo.missing_eos=drop"], ["'drop'", "keep, replace, subtract"]),
        (["algo.lr_schedule=step"], ["'step'", "constant, cosine, linear"]),
        (["algo.temperature=0"], ["algo.temperature=0.0 must be 0.001 to 100"]),
        (["algo.learning_rate=nan"], ["algo.learning_rate=nan must be 0 to 100"]),
        (["sft.updates=0", "sft.passes=0"], ["sft: updates=0 and passes=0.0"]),
        (["reward.loss=hinge"], ["'hinge'", "bradley_terry, plackett_luce"]),
        (["model.generation_batch_size=0"], ["model.generation_batch_size=0"]),
        (["rankings.responses=1"], ["rankings.responses=1 must be 2 to 10000"]),
        (["rankings.held_out=1.5"], ["rankings.held_out=1.5"]),
        (["rankings.temperature=0"], ["rankings.temperature=0.0"]),
        (["eval.samples=0"], ["eval.samples=0"]),
        (["eval.questions=-1"], ["eval.questions=-1"]),
        (["algo.minibatches=0"], ["algo.minibatches=0 must be 1 or more"]),
        (["algo@sft=dpo"], ["algo@sft=dpo learns from preferences", "choose algo@sft=sft"]),
        (["algo@pretrain=ppo"], ["algo@pretrain=ppo learns from rollouts", "choose algo@pretrain=sft"]),
        (["eval.options.diversity=null"], ["eval.options.diversity holds options", "limit=10"]),
        (["data=${oc.create:[]}"], ["data=${oc.create:[]}", "name of one choice"]),
        (["cache_dir='~nouser/x'"], ["cache_dir=~nouser/x", "no home folder ~nouser"]),
        (["results_dir="], ["results_dir is empty"]),
        (["~eval"], ["eval.families names no evaluation", "eval=standard"]),
        (["eval.families=[]"], ["eval.families names no evaluation"]),
        (["algo.updates=???"], ["algo.updates=??? is no value"]),
        (["eval.path=/nonexistent"], ["eval.path=/nonexistent", "no such folder"]),
        (["data=preferences", "data.path=data/prefs.jsonl"], ["data.path=data/prefs.jsonl", "no such file"]),
        (["eval.points.families=[nope]"], ["'nope' in eval.points.families"]),
        (["-m", "seed=0,1", "algo=nope"], ["Unknown algo 'nope'", f"Choices: {ALGORITHMS}."]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_before_it_starts(
    command: Command, no_model: None, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = command(*arguments)
    error = one_line(done, 2, *words)
    assert done.err == f"{error}\n", "nothing else is said"
    assert done.out == ""
    assert not (tmp_path / "runs").exists()


# Results that cannot be written


def test_file_in_the_way_of_the_results(command: Command, no_model: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/runs"):
        one_line(
            command(f"results_dir={tmp_path / place}"), 2, str(tmp_path / place), "file, not a folder", "results_dir="
        )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_place_that_takes_no_folders(command: Command, no_model: None) -> None:
    one_line(command("results_dir=/proc/alignbench"), 2, "Cannot write /proc/alignbench")
    one_line(command("-m", "seed=0,1", "hydra.sweep.dir=/proc/alignbench"), 2, "/proc/alignbench")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(command: Command, no_model: None, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    one_line(command(f"results_dir={tmp_path / 'locked' / 'runs'}"), 2, "no permission", "results_dir=")


# What is refused before a model is loaded, though after the run has begun


def hh(path: Path, rows: int = 30) -> Path:
    turn = "\n\nHuman: question {}\n\nAssistant: "
    row = [{"chosen": turn.format(i) + f"yes {i}", "rejected": turn.format(i) + f"no {i}"} for i in range(rows)]
    path.write_text("".join(json.dumps(r) + "\n" for r in row))
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["device=banana"], ["device='banana'", "auto, cpu, cuda"]),
        (["device=meta"], ["device='meta'", "auto, cpu, cuda"]),
        (["device=cuda:64"], ["device=cuda:64", "device=auto"]),
        (["data=hh", "data.path=/nowhere/hh"], ["data.path=/nowhere/hh"]),
        (["data=hh", "data.path={malformed}"], ["malformed.jsonl, line 3", "not JSON"]),
        (["data=hh", "data.path={empty}"], ["0 rows"]),
        (
            ["data=hh", "data.path={hh}", "data.held_out_rows=5", "annotator=mild"],
            ["mild", "data=world", "leave annotator out"],
        ),
        (
            ["data=hh", "data.path={hh}", "data.held_out_rows=5", "annotator=recorded", "reward=gold"],
            ["reward=gold needs data that knows the truth", "data=world", "reward=learned"],
        ),
        (["data=hh", "data.path={hh}", "data.held_out_rows=300"], ["data.held_out_rows"]),
        (["reward=function"], ["reward.target=''", "package.module:function"]),
        (
            ["reward=function", "reward.target=no.such:thing"],
            ["reward.target=no.such:thing cannot be imported (No module"],
        ),
        (["annotator=recorded"], ["annotator=recorded", "no rankings", "annotator.path="]),
        (["annotator=recorded", "annotator.path=/nowhere/rankings.jsonl"], ["/nowhere/rankings.jsonl"]),
        (["annotator=recorded", "annotator.path={malformed}"], ["malformed.jsonl, line 3", "not JSON"]),
        (
            [
                "algo=dpo",
                "algo.soft_labels=true",
                "data=hh",
                "data.path={hh}",
                "data.held_out_rows=5",
                "annotator=recorded",
            ],
            ["annotator=recorded knows none", "algo.soft_labels=true"],
        ),
        (
            ["algo=dpo", "algo.soft_labels=true", "annotator=mild", "annotator.rating_step=2"],
            ["annotator=mild knows none as it is set", "algo.soft_labels=true"],
        ),
        (["tracker=trackio"], ["tracker=trackio", "pip install"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_before_a_model_is_loaded(
    command: Command, no_model: None, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    if "tracker=trackio" in arguments:
        pytest.importorskip("accelerate")
        if pytest.importorskip("importlib.util").find_spec("trackio"):
            pytest.skip("trackio is installed")
    good = hh(tmp_path / "hh.jsonl").read_text().splitlines()
    (tmp_path / "malformed.jsonl").write_text("\n".join([*good[:2], good[2][:20], *good[3:]]))
    (tmp_path / "empty.jsonl").write_text("")
    files = {name: tmp_path / f"{name}.jsonl" for name in ("hh", "malformed", "empty")}
    one_line(command(*(argument.format(**files) for argument in arguments)), 2, *words)
    nothing_looks_finished(tmp_path / "runs")


# What needs the model to be seen


def test_model_without_a_tokenizer(command: Command, tmp_path: Path) -> None:
    path = hh(tmp_path / "hh.jsonl")
    arguments = ["algo=sft", "data=hh", f"data.path={path}", "data.held_out_rows=5"]
    one_line(command(*arguments), 2, "tokenizer", "data=world")
    nothing_looks_finished(tmp_path / "runs")


@pytest.mark.parametrize("path", ["/nowhere/model", "nobody/no-such-model"])
def test_model_that_cannot_be_found(small: Command, tmp_path: Path, path: str) -> None:
    one_line(small("model=hf", f"model.path={path}"), 2, path, "no such")
    nothing_looks_finished(tmp_path / "runs")


def test_a_run_that_would_measure_nothing(small: Command, tmp_path: Path) -> None:
    one_line(
        small("eval.primary=[diversity/entropi]"),
        2,
        "Unknown metric 'diversity/entropi' in eval.primary",
        "Did you mean",
    )
    done = small("eval.families=[exact]")
    one_line(done, 2, "eval.families=[exact] measures nothing on data=world with model=tiny", "eval=standard")
    assert "pretrain" not in done.err, "it is seen before anything is trained"
    nothing_looks_finished(tmp_path / "runs")


def test_no_prompt_fits_the_window(small: Command, tmp_path: Path) -> None:
    one_line(small("model.max_prompt_tokens=3"), 2, "None of the 100 training prompts", "model.max_prompt_tokens=3")
    nothing_looks_finished(tmp_path / "runs")


def test_prompts_that_do_not_fit_are_set_aside_and_counted(small: Command, tmp_path: Path) -> None:
    done = small("algo=sft", "model.max_prompt_tokens=20")
    assert done.code == 0, done.err
    (said,) = (line for line in done.err.splitlines() if "training prompts set aside" in line)
    assert 0 < int(said.split()[0]) < 100


# Numbers that are no numbers


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("nan", 1, ["the reward is NaN or infinite", "reward source"]),
        ("infinity", 1, ["the reward is NaN or infinite"]),
        ("shape", 2, ["shape (72, 1) for 72 responses"]),
    ],
)
def test_reward_that_breaks_its_contract(
    small: Command, plugin: Plugin, tmp_path: Path, fault: str, code: int, words: list[str]
) -> None:
    one_line(small("reward=faulty", f"reward.fault={fault}"), code, *words)
    nothing_looks_finished(tmp_path / "runs")


def test_reward_that_fails_while_it_trains(small: Command, plugin: Plugin, tmp_path: Path) -> None:
    """One call for the SFT row, then one per update: the third update is the first that fails."""
    error = one_line(
        small("algo.updates=5", "reward=faulty", "reward.fault=late", "eval.frontier_samples=0"),
        1,
        "ppo, update 3 of 5",
        "the reward is",
    )
    run, sft = records(tmp_path / "runs")
    assert (run["status"], run["metrics"], sft["status"]) == ("failed", {}, "finished")
    assert run["error"] == error.removeprefix("alignbench: error: ")
    (directory,) = (tmp_path / "runs").iterdir()
    assert [line["update"] for line in lines(directory / "train.jsonl") if line["stage"] == "ppo"] == [1, 2]


@pytest.mark.parametrize(
    ("stage", "arguments", "at"),
    [
        ("pretrain", ["pretrain.learning_rate=1e30"], "pretrain, update 2 of 2"),
        ("sft", ["sft.learning_rate=1e30"], "sft, update 2 of 3"),
        ("reward", ["reward.learning_rate=1e30"], "reward, after update 1"),
        ("algo", ["algo.learning_rate=1e30", "algo.warmup_updates=0"], "ppo, update 1 of 2"),
    ],
)
def test_divergence_says_where_and_keeps_the_last_good_weights(
    small: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, arguments: list[str], at: str
) -> None:
    for module in ("selection", "optimizer_config"):  # such a rate is out of its range
        monkeypatch.setattr(f"alignbench.{module}.check_bounds", lambda *_: None)
    error = one_line(small("sft.warmup_updates=0", *arguments), 1, at, "NaN or infinite", "ower", "last_good")
    run, *_ = records(tmp_path / "runs")
    assert (run["status"], run["metrics"]) == ("failed", {})
    assert at in run["error"]
    (directory,) = (tmp_path / "runs").iterdir()
    kept = directory / "last_good" / "model"
    assert str(kept) in error
    weights = AutoModelForCausalLM.from_pretrained(kept).state_dict()
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())
    if stage in ("reward", "algo"):  # the policy is then what it was before: PPO's first update is undone whole
        before = AutoModelForCausalLM.from_pretrained(directory / "sft" / "model").state_dict()
        assert all(torch.equal(weights[name], before[name]) for name in before)
    assert not (directory / "model").exists()
