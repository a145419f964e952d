"""`alignbench plan`: what each algorithm asks of the model, whether it fits, and what would make it fit."""

from __future__ import annotations

import dataclasses
import re

import pytest

from alignbench import Does, UserError
from alignbench.app.compose import load_config
from alignbench.app.config import RunConfig
from alignbench.commands import plan
from alignbench.commands.plan import changed, remedy
from alignbench.pipeline.memory import GIB, MANY, Machine, Stage, estimate, workload
from alignbench.records.memory_plan import Part
from tests.core.harness import Command


def asked(*overrides: str) -> dict[str, tuple[Does, int, int, int]]:
    """Of each stage: what is done, rows, roles that exist, roles that are trained."""
    works = workload(load_config(overrides))
    return {work.stage: (work.does, work.rows, len(work.roles), len(work.optimized)) for work in works}


def test_what_an_algorithm_asks_of_the_model() -> None:
    small = ["rankings.prompts=5", "rankings.responses=3", "sft.micro_batch_size=7", "algo.batch_size=8"]
    start = {"sft": (Does.TRAIN, 7, 1, 1), "rankings": (Does.SAMPLE, 15, 2, 0)}
    assert asked("algo=ppo", *small, "algo.micro_batch_size=4", "reward.micro_batch_size=2") == {
        **start,
        "reward": (Does.TRAIN, 6, 3, 1),
        "rollouts": (Does.SAMPLE, 8, 4, 2),
        "scoring": (Does.SCORE, 8, 4, 2),
        "ppo": (Does.TRAIN, 4, 4, 2),
    }
    assert asked("algo=dpo", *small, "algo.micro_batch_size=4") == {
        **start,
        "scoring": (Does.SCORE, 16, 2, 0),
        "dpo": (Does.TRAIN, 8, 2, 1),
    }
    assert asked("algo=online_dpo", "reward=gold", *small)["online_dpo"] == (Does.TRAIN, 8, 2, 1)
    assert asked("algo=rloo", "reward=gold", *small)["rollouts"] == (Does.SAMPLE, 8, 2, 1)
    assert [*asked("algo=sft", "algo.micro_batch_size=7")] == ["sft"]
    assert asked("algo=best_of_n", "reward=gold", "algo.n=8", "eval.samples=2")["responses"][1] == 16 * MANY
    assert "scoring" not in asked("algo=simpo")


def test_the_command_says_what_takes_how_much(command: Command) -> None:
    done = command("plan", "algo=ppo", "model=tiny")
    assert done.code == 0
    for word in ("weights", "optimiser", "gradients", "activations", "KV cache", "logits", "process", "in all"):
        assert word in done.out
    assert re.search(r"Peak: \d+\.\d\d GiB in \w+, of \d+\.\d GiB of (RAM|GPU memory): it fits\.", done.out)
    assert not done.err


def test_what_does_not_fit_comes_with_settings_that_do(command: Command) -> None:
    done = command("plan", "algo=ppo", "model=tiny", "device=cpu", "--memory", "0.001")
    assert done.code == 1
    assert "it does not fit." in done.out and "No two settings make it fit" in done.out
    assert command("plan", "--memory", "0").code == 2


@dataclasses.dataclass
class Estimate:
    """Peaks by arithmetic on the settings."""

    def __call__(self, config: RunConfig, machine: Machine, tokenizer: object = None) -> list[Stage]:
        sizes = [
            5 * config.algo.config.micro_batch_size + config.model.config.generation_batch_size,
            2 * config.reward.config.micro_batch_size,
        ]
        return [Stage(str(i), (Part("all", size),)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (100, "It fits with algo.micro_batch_size=8 or model.generation_batch_size=16."),
        (70, "It fits with algo.micro_batch_size=4."),
        (36, "It fits with algo.micro_batch_size=4 and model.generation_batch_size=16."),
        (3, "No two settings make it fit: algo.micro_batch_size=1 and model.generation_batch_size=1 come nearest"),
    ],
)
def test_the_mildest_values_that_fit_are_named(monkeypatch: pytest.MonkeyPatch, limit: int, words: str) -> None:
    monkeypatch.setattr(plan, "estimate", Estimate())
    settings = ["algo.micro_batch_size=16", "model.generation_batch_size=32", "reward.micro_batch_size=1"]
    config = load_config(["algo=ppo", "model=tiny", "sft.micro_batch_size=1", "model.scoring_batch_size=1", *settings])
    assert remedy(config, Machine("cpu", limit, 0)).startswith(words)


def test_what_is_named_does_fit() -> None:
    config = load_config(["algo=ppo", "model=tiny"])
    here = Machine("cpu", 0, 0)
    smaller = changed(config, [("algo.micro_batch_size", 2), ("model.generation_batch_size", 4)])
    machine = dataclasses.replace(here, limit=max(stage.total for stage in estimate(smaller, here)))
    line = remedy(config, machine)
    changes = [(name, int(value)) for name, value in re.findall(r"([\w.]+)=(\d+)", line)]
    assert changes and line.startswith("It fits with")
    for choice in [[change] for change in changes] if " or " in line else [changes]:
        assert max(stage.total for stage in estimate(changed(config, choice), machine)) <= machine.limit


def test_a_gpu_that_is_not_there_needs_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="--memory 24"):
        plan.this_machine("cuda", None)
    assert plan.this_machine("auto", 24.0) == Machine("cuda", 24 * GIB, plan.CUDA_CONTEXT)
    assert plan.this_machine("cpu", 24.0).device == plan.this_machine("auto", None).device == "cpu"


def test_a_model_that_cannot_say_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(["model=tiny"])
    monkeypatch.delattr(type(config.model.config), "plan")
    with pytest.raises(UserError, match="model=tiny does not estimate its memory"):
        estimate(config, Machine("cpu", GIB, 0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=hh", "data.path=/nowhere/hh"], ["data.path=/nowhere/hh"]),
        (["annotator=recorded"], ["annotator=recorded has no rankings"]),
        (["data=exact", "model=micro", "annotator=mild"], ["annotator"]),
    ],
    ids=str,
)
def test_what_a_run_would_refuse_is_refused(command: Command, arguments: list[str], words: list[str]) -> None:
    done, run = command("plan", "algo=dpo", *arguments), command("algo=dpo", *arguments)
    assert (done.code, done.out) == (2, "") and done.errors == run.errors and len(done.errors) == 1
    assert all(word in done.errors[0] for word in words)
