"""The exchange of files between a run and TRL 1.12's PPO, which needs no TRL: a stand-in follows what docs/trl.md states."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_trl.config import PPOConfig
from alignbench_trl.environment import only, python_of
from alignbench_trl.ppo import figures, tensors, write_base
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from alignbench import POLICY, REFERENCE, AlignbenchError, UserError
from tests import tiny
from tests.trl.world import Trial


def environment(folder: Path, version: str = "1.12.0", fault: str = "none") -> str:
    """A folder whose `bin/python` is the stand-in; it is called as that of an environment would be."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    stand_in = Path(__file__).with_name("stand_in.py")
    python.write_text(f'#!/bin/sh\n[ "$1" = -I ] && exec {sys.executable} {stand_in} "$3" {version} {fault}\n')
    python.chmod(0o755)
    return str(folder)


def trial(folder: Path, *given: str, **settings: Any) -> Trial:
    return Trial("trl_ppo", environment=environment(folder, *given), **settings)


def test_weights_go_there_with_prompts_responses_and_scores_and_come_back_trained(tmp_path: Path) -> None:
    tried = trial(tmp_path, learning_rate=0.5)
    with torch.no_grad():
        for parameter in tried.world.policy.trainable():
            parameter += 0.1
    before, batch = tried.weights(), tried.world.batch(tried.config, 0)
    report = tried.update()
    mean = float(batch.scores.mean())
    torch.testing.assert_close(tried.weights(), before + 0.5 * mean)
    assert abs(mean) > 0.01
    expected = {"reward": mean, "kl": 0.25, "trl/val/ratio": mean, "learning_rate": 0.5}
    assert {name: report.metrics[name] for name in expected} == pytest.approx(expected)
    assert not {"trl/eps", "trl/x"} & set(report.metrics)
    samples = batch.rollout.samples
    assert report.metrics["length"] == pytest.approx(float(samples.sequences.response_mask.sum(1).float().mean()))
    assert report.metrics["eos_rate"] == pytest.approx(float(samples.finished.float().mean()))
    given = load_file(tried.optimizer._folder / "batch.safetensors")
    for name, tensor in vars(samples.sequences).items():
        assert torch.equal(given[name], tensor.long())
    assert torch.equal(given["scores"], batch.scores)


def test_what_the_process_starts_from(tmp_path: Path) -> None:
    tried = trial(tmp_path)
    folder, policy = tried.optimizer._folder, tried.world.policy
    reference = load_file(folder / "reference.safetensors")
    assert sum(t.numel() for t in reference.values()) == sum(p.numel() for p in policy.trainable())
    saved = load_file(folder / "start" / "model" / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in reference.items())
    bias = load_file(folder / "output_bias.safetensors")["bias"]
    assert [i for i, x in enumerate(bias.tolist()) if x] == [policy.tokenizer.pad_token_id]


def test_settings_are_trls_arguments(tmp_path: Path) -> None:
    tried = trial(
        tmp_path, updates=7, warmup_updates=2, adam_eps=1e-7, kl_coef=0.3, epochs=3, minibatches=2, clip_ratio=0.1, clip_value=0.0,
        value_coef=0.7, gae_lambda=0.9, temperature=0.8, lr_schedule="cosine", whiten_rewards=True,
    )  # fmt: skip
    settings = json.loads((tried.optimizer._folder / "settings.json").read_text())
    given = settings["arguments"]
    assert (given["num_ppo_epochs"], given["num_mini_batches"], given["total_episodes"]) == (3, 2, 7 * 16)
    assert (given["per_device_train_batch_size"], given["gradient_accumulation_steps"]) == (16, 1)
    assert (given["kl_coef"], given["cliprange"], given["cliprange_value"], given["vf_coef"]) == (0.3, 0.1, 1e6, 0.7)
    assert (given["lam"], given["temperature"], given["warmup_steps"], given["adam_epsilon"]) == (0.9, 0.8, 2, 1e-7)
    assert (given["lr_scheduler_type"], given["whiten_rewards"], given["response_length"]) == ("cosine", True, 2)
    assert (settings["dtype"], settings["eos"]) == ("float32", tried.world.policy.eos_token_ids[0])
    assert tried.update().optimizer_steps == 6


def test_micro_batches_are_gathered_where_an_epoch_is_one_step(tmp_path: Path) -> None:
    tried = trial(tmp_path, micro_batch_size=5)
    given = json.loads((tried.optimizer._folder / "settings.json").read_text())["arguments"]
    assert (given["per_device_train_batch_size"], given["gradient_accumulation_steps"]) == (4, 4)


@pytest.mark.parametrize("role", [POLICY, REFERENCE])
def test_of_adapters_those_of_the_role_travel_under_the_same_names(role: str) -> None:
    policy = tiny.adapters()
    policy.freeze_reference()
    policy.scalar("reward")
    names = set(tensors(policy.as_transformers(POLICY)))
    tiny.move(policy)
    found = tensors(policy.as_transformers(role))
    assert set(found) == names and sum(t.numel() for t in found.values()) == sum(p.numel() for p in policy.trainable())
    mine = {id(p) for p in policy.trainable()}
    assert {id(t) in mine for t in found.values()} == {role == POLICY}


def test_a_reward_or_a_loss_that_is_no_number_is_told() -> None:
    told = figures({"objective/scores": float("nan"), "loss/value_avg": float("inf"), "x": float("nan")})
    assert sorted(told) == ["reward", "value_loss"], "the run ends there"


def test_a_base_that_has_no_folder_goes_along(tmp_path: Path) -> None:
    """Loaded again with the adapter, it is the policy."""
    policy = tiny.adapters()
    policy.freeze_reference()
    tiny.move(policy)
    model, sequences = policy.as_transformers(), tiny.sequences(policy)
    base = AutoModelForCausalLM.from_pretrained(write_base(model, tmp_path / "base"))
    loaded = PeftModel.from_pretrained(base, policy.save(tmp_path))
    ids = sequences.response_ids
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5, rtol=1e-4)


def test_a_new_process_goes_on_from_a_state(tmp_path: Path) -> None:
    first = trial(tmp_path / "first")
    first.update(2)
    state = first.optimizer.state_dict()
    second = trial(tmp_path / "second")
    second.optimizer.load_state_dict(state)
    second.done = 2
    ratio = second.update().metrics["trl/val/ratio"]
    assert ratio == pytest.approx(first.update().metrics["trl/val/ratio"] + 200), "what it kept, and two updates"


def test_the_process_ends_with_its_optimizer(tmp_path: Path) -> None:
    tried = trial(tmp_path)
    process, folder = tried.optimizer._process._process, tried.optimizer._folder
    assert process.poll() is None
    del tried
    gc.collect()
    assert process.poll() == 0 and not folder.exists()


# What is refused


def one_line(refused: pytest.ExceptionInfo[AlignbenchError]) -> str:
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_environment_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    config = PPOConfig(environment=str(tmp_path / "none"))
    for ask in (config.ready, lambda: Trial("trl_ppo", environment=config.environment)):
        with pytest.raises(UserError) as refused:
            ask()
        said = one_line(refused)
        assert "algo.environment" in said and f"python -m venv {tmp_path}/none" in said and "trl==1.12.0" in said


def test_a_folder_with_a_space_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"venv '\S*/my own' && '\S*/my own'/bin/pip install"):
        python_of(str(tmp_path / "my own"))
    with pytest.raises(UserError, match=r"venv ~/'no env' && ~/'no env'/bin/pip"):
        python_of("~/no env")


def test_a_process_sees_the_gpu_of_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert only(torch.device("cpu")) == {}
    assert only(torch.device("cuda", 1)) == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert only(torch.device("cuda", 1)) == {"CUDA_VISIBLE_DEVICES": "6"}


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    before = (tried := trial(tmp_path, "1.12.0", "prints")).weights()
    tried.update()
    assert not torch.equal(before, tried.weights())


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        trial(tmp_path, "1.16.0")
    assert "TRL 1.16.0" in one_line(refused) and "trl==1.12.0" in one_line(refused)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("killed", "was ended by SIGKILL before 'batch 0'"),
        ("dies", "code 3 .* 'batch 0' .*some library's last words"),
        ("renames", "other weights"),
    ],
)
def test_what_goes_wrong_over_there_is_one_line_here(tmp_path: Path, fault: str, said: str) -> None:
    tried = trial(tmp_path, "1.12.0", fault)
    before = tried.weights()
    with pytest.raises(AlignbenchError, match=said) as refused:
        tried.update()
    one_line(refused)
    assert torch.equal(tried.weights(), before)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_grad_norm": 1.0}, "clips no gradient"),
        ({"minibatches": 2, "batch_size": 64, "micro_batch_size": 16}, r"algo\.micro_batch_size=16 .* give 32 or more"),
        ({"minibatches": 16, "batch_size": 64, "whiten_rewards": True}, "minibatches of 8"),
        ({"minibatches": 3}, "not a multiple"),
    ],
)
def test_what_trls_ppo_has_not_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        PPOConfig(**settings)
