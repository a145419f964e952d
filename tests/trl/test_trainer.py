"""How a run's settings, batches, chances and checkpoints become TRL's, and what is refused."""

from __future__ import annotations

import gc
import importlib
import random
import sys
import threading
from importlib.metadata import PackageNotFoundError
from typing import Any

import numpy
import pytest
import torch

pytest.importorskip("trl", reason="TRL's trainers need the extra trl")

import alignbench_trl
from alignbench_trl import library
from alignbench_trl.config import DPOConfig
from alignbench_trl.labels import rotated
from alignbench_trl.lockstep import Lockstep
from alignbench_trl.optimizer import figures
from alignbench_trl.trainer import divisor

from alignbench import POLICY, Seeds, UserError, functional
from alignbench.plugins import resolve
from tests.trl.world import Trial

ALGORITHMS = ("trl_dpo", "trl_orpo", "trl_cpo", "trl_kto", "trl_grpo", "trl_rloo", "trl_online_dpo")
every_algorithm = pytest.mark.parametrize("algo", ALGORITHMS)


def test_settings_are_trls_arguments() -> None:
    settings = {"learning_rate": 3e-3, "warmup_updates": 2, "weight_decay": 0.1, "adam_eps": 1e-7, "max_grad_norm": 0.5}
    trial = Trial("trl_dpo", updates=7, beta=0.3, micro_batch_size=5, lr_schedule="cosine", **settings)
    given = trial.optimizer._trainer.args
    assert (given.beta, given.learning_rate, given.weight_decay) == (0.3, 3e-3, 0.1)
    assert (given.adam_epsilon, given.max_grad_norm, given.lr_scheduler_type) == (1e-7, 0.5, "cosine")
    assert (given.max_steps, given.warmup_steps) == (7, 2)
    assert (given.per_device_train_batch_size, given.gradient_accumulation_steps) == (4, 4)
    assert not given.bf16 and given.disable_dropout and given.max_length == 4


def test_epochs_and_minibatches_are_iterations_and_steps() -> None:
    trial = Trial(
        "trl_grpo", epochs=3, minibatches=2, warmup_updates=1, kl_coef=0.2, clip_ratio=0.1, samples_per_prompt=4,
        temperature=0.8, micro_batch_size=4, loss_type="dr_grpo", scale_rewards="batch",
    )  # fmt: skip
    given = trial.optimizer._trainer.args
    assert (given.num_iterations, given.steps_per_generation, given.num_generations) == (3, 4, 4)
    assert (given.generation_batch_size, given.per_device_train_batch_size) == (16, 4)
    assert (given.beta, given.epsilon, given.temperature, given.max_completion_length) == (0.2, 0.1, 0.8, 2)
    assert (given.loss_type, given.scale_rewards, given.max_steps, given.warmup_steps) == ("dr_grpo", "batch", 24, 6)
    assert trial.update().optimizer_steps == 6


@pytest.mark.parametrize("sizes", [{"micro_batch_size": 1}, {"batch_size": 37, "micro_batch_size": 32}])
def test_kto_needs_two_pairs_at_a_time(sizes: dict[str, int]) -> None:
    """With one, TRL's mismatched completion would be the other response to the same prompt."""
    with pytest.raises(UserError, match="needs two"):
        Trial("trl_kto", **sizes)


def test_kl_is_in_nats_per_response() -> None:
    """TRL's own is nats per token; without a KL it has no reference, and the figure is there all the same."""
    for settings in ({"kl_coef": 0.3}, {"kl_coef": 0.0}):
        trial = Trial("trl_grpo", learning_rate=0.05, **settings)
        trial.update()
        batch = trial.world.batch(trial.config, 1)
        sequences = batch.rollout.samples.sequences
        with torch.no_grad():
            own, ref = (trial.world.policy.logprobs(sequences, role=role).logprobs for role in (POLICY, "reference"))
        expected = functional.sequence_kl(own, ref, sequences.response_mask).mean()
        report = trial.update()
        assert float(expected) > 0.01
        assert report.metrics["kl"] == pytest.approx(float(expected), rel=1e-3)


@every_algorithm
def test_the_same_seed_gives_the_same_weights_and_no_other_chance_moves(algo: str) -> None:
    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    one, two = Trial(algo, learning_rate=1e-2), Trial(algo, learning_rate=1e-2)
    for trial in (one, two):
        trial.update(2)
    assert torch.equal(one.weights(), two.weights())
    after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])


@every_algorithm
def test_goes_on_from_its_state(algo: str) -> None:
    whole, first = (Trial(algo, learning_rate=1e-2, lr_schedule="linear") for _ in range(2))
    whole.update(4)
    first.update(2)
    second = Trial(algo, learning_rate=1e-2, lr_schedule="linear")
    with torch.no_grad():
        for mine, saved in zip(second.world.policy.trainable(), first.world.policy.trainable(), strict=True):
            mine.copy_(saved)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.done = 2
    report = second.update(2)
    torch.testing.assert_close(second.weights(), whole.weights(), atol=1e-6, rtol=1e-5)
    assert report.metrics["learning_rate"] < 1e-2 / 3, "the schedule went on"


def test_a_state_before_the_first_update() -> None:
    one, two = Trial("trl_rloo", learning_rate=1e-2), Trial("trl_rloo", learning_rate=1e-2)
    two.optimizer.load_state_dict(one.optimizer.state_dict())
    one.update(), two.update()
    assert torch.equal(one.weights(), two.weights())


def test_what_trl_does_not_know_is_left_out_and_a_loss_never_is() -> None:
    told = [{"loss": 1.0, "grad_norm": 2.0, "rewards/margins": 1.0, "x": float("nan"), "y": None, "epoch": 0.5}]
    told.append({**told[0], "loss": 3.0})
    assert figures(told) == {"loss": 2.0, "gradient_norm": 2.0, "margin": 1.0}
    assert figures([{"loss": float("nan"), "grad_norm": 1.0}])["loss"] != 0


def test_a_mismatched_completion_is_never_that_of_the_same_pair() -> None:
    rows = [{"prompt_ids": [i // 2], "completion_ids": [i], "label": i % 2 == 0} for i in range(6)]
    found = rotated(rows)
    assert sorted(row["KL_completion_ids"][0] for row in found) == list(range(6))
    assert all(row["KL_completion_ids"][0] // 2 != row["prompt_ids"][0] for row in found)


def test_divisor() -> None:
    assert [divisor(12, most) for most in (1, 3, 5, 11, 12, 99)] == [1, 3, 4, 6, 12, 12]
    assert divisor(7, 5) == 1


# What is refused


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "muon"}, "algo.optimizer"),
        ({"lr_schedule": "wsd"}, "algo.lr_schedule"),
        ({"lr_schedule_options": {"final": 0.1}}, "lr_schedule_options"),
    ],
)
def test_what_trl_has_not_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DPOConfig(**settings)


@pytest.mark.parametrize("found", [None, "1.17.0", "0.29.1"])
def test_one_line_where_trl_is_missing_or_another(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    def version(name: str) -> str:
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    for name in [name for name in sys.modules if name.startswith("alignbench_trl.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(alignbench_trl, "library")
    with pytest.raises(UserError) as refused:
        resolve("trl_dpo").load()
    line = str(refused.value)
    assert "\n" not in line and "pip install 'alignbench[trl]'" in line and "algo=trl_dpo" in line
    assert (found or "not installed") in line


def test_a_quantised_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("trl_dpo")
    model = trial.world.policy.as_transformers()
    model.is_quantized = True
    monkeypatch.setattr(trial.world.policy, "as_transformers", lambda role=POLICY: model)
    with pytest.raises(UserError, match=r"model\.quantization=none"):
        trial.component.load()(trial.config, policy=trial.world.policy, updates=1, seeds=Seeds(0))


# Taking turns


def test_turns_are_taken_and_end() -> None:
    seen: list[str] = []

    def loop(take: Any) -> None:
        for _ in range(2):
            seen.append(f"loop {take()}")

    turns: Lockstep[int] = Lockstep(loop)
    for number in range(2):
        turns.turn(number)
        seen.append(f"back {number}")
    assert seen == ["loop 0", "back 0", "loop 1", "back 1"]


def test_what_the_loop_raises_is_raised_in_the_turn() -> None:
    def loop(take: Any) -> None:
        take()
        raise ValueError("a fault of the batch")

    with pytest.raises(ValueError, match="a fault of the batch"):
        Lockstep(loop).turn(0)


def test_a_loop_that_nobody_feeds_any_more_ends() -> None:
    def loop(take: Any) -> None:
        threads.append(threading.current_thread())
        while True:
            take()

    threads: list[threading.Thread] = []
    turns: Lockstep[int] = Lockstep(loop)
    turns.turn(0)
    del turns
    gc.collect()
    threads[0].join(5)
    assert not threads[0].is_alive()


def test_a_trainer_that_is_dropped_ends() -> None:
    trial = Trial("trl_rloo")
    trial.update()
    thread = trial.optimizer._loop._thread
    del trial
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_the_series_is_what_is_installed() -> None:
    library.check_version()
