"""The built-in optimizers, against arithmetic in float64 and against torch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alignbench import OptimizerConfig, UserError, functional, select
from alignbench.app.compose import load_config
from alignbench.pipeline.memory import workload
from alignbench.selection import Selected
from tests import tiny

RATES = [0.01, 0.05, 0.05, 0.02, 0.0, 0.03]


def scheduled(config: OptimizerConfig, *weights: torch.nn.Parameter, updates: int = 4) -> functional.ScheduledAdamW:
    return functional.ScheduledAdamW(config, {"policy": list(weights)}, updates)


def test_schedule_free_is_the_algorithm_of_the_paper() -> None:
    """arXiv 2405.15682, algorithm 1 with AdamW's second moment, element by element in float64."""
    beta, decay, eps = 0.8, 0.3, 1e-2
    weights = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    x = z = weights.detach().double()
    square, total = torch.zeros(3).double(), 0.0
    settings = OptimizerConfig(optimizer="schedule_free", weight_decay=decay, adam_eps=eps)
    made = select("optimizer", "schedule_free", {"beta": beta}, where="").build(
        groups=[{"params": [weights], "name": "policy"}], settings=settings
    )
    for t, rate in enumerate(RATES, 1):
        y = (1 - beta) * z + beta * x
        gradient = y**3 - 1
        square = 0.999 * square + 0.001 * gradient**2
        z = z - rate * (gradient / ((square / (1 - 0.999**t)).sqrt() + eps) + decay * y)
        total += rate**2
        x = (1 - rate**2 / total) * x + rate**2 / total * z

        made.param_groups[0]["lr"] = rate
        made.zero_grad()
        torch.testing.assert_close(weights.detach().double(), y, atol=1e-6, rtol=1e-6)
        weights.grad = weights.detach() ** 3 - 1
        made.step()
        torch.testing.assert_close(weights.detach().double(), x, atol=1e-6, rtol=1e-6)


def test_schedule_free_shows_its_average_whatever_happens_between() -> None:
    """What is asked without a step in between, as when nothing of a batch is learnt from, is not lost."""
    weights = torch.nn.Parameter(torch.ones(2))
    made = scheduled(OptimizerConfig(optimizer="schedule_free", lr_schedule="constant"), weights)
    for _ in range(3):
        made.next_update()
        made.zero_grad()
        made.zero_grad()  # of two losses, or of a batch that was left out
        weights.grad = torch.ones(2)
        made.step()
    averages = made._optimizer._averages  # type: ignore[attr-defined]
    assert not averages
    before = weights.detach().clone()
    made.zero_grad()
    assert not torch.equal(weights, before)
    assert torch.equal(next(iter(averages.values())), before)


def alone(optimizer: torch.optim.Optimizer, weights: torch.nn.Parameter, gradients: list[Tensor]) -> Tensor:
    for gradient in gradients:
        weights.grad = gradient.clone()
        optimizer.step()
    return weights.detach()


def test_muon_is_torchs_for_matrices_and_adamw_for_the_rest() -> None:
    rng = torch.Generator().manual_seed(0)
    start = {shape: torch.randn(shape, generator=rng) for shape in ((4, 3), (3,), (1, 3))}
    ours = {shape: torch.nn.Parameter(value.clone()) for shape, value in start.items()}
    gradients = {shape: [torch.randn(shape, generator=rng) for _ in range(3)] for shape in start}
    config = OptimizerConfig(
        optimizer="muon", lr_schedule="constant", learning_rate=0.1, weight_decay=0.2, max_grad_norm=0.0
    )
    made = scheduled(config, *ours.values())
    for number in range(3):
        made.next_update()
        for shape, weights in ours.items():
            weights.grad = gradients[shape][number].clone()
        made.step()
    for shape, value in start.items():
        theirs = torch.nn.Parameter(value.clone())
        plain: torch.optim.Optimizer = torch.optim.AdamW([theirs], lr=0.1, eps=1e-5, weight_decay=0.2)
        if shape == (4, 3):
            plain = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
        assert torch.equal(ours[shape], alone(plain, theirs, gradients[shape])), shape


def test_muon_wants_a_torch_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = load_config(["algo=dpo", "algo.optimizer=muon"]).algo
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match=r"optimizer=muon needs torch 2\.9"):
        chosen.check_ready()


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "schedule_free"])
def test_every_optimizer_trains_a_model(optimizer: str) -> None:
    """The likelihood of a response rises."""
    policy = tiny.scratch()
    sequences = tiny.sequences(policy)
    config = OptimizerConfig(optimizer=optimizer, learning_rate=0.02, lr_schedule="wsd")
    made = functional.ScheduledAdamW(config, {"policy": policy.trainable()}, 8)
    seen = []
    for _ in range(8):
        made.next_update()
        made.zero_grad()
        loss = -functional.summed_logprobs(policy, sequences).mean()
        loss.backward()
        made.step()
        with torch.no_grad():
            seen.append(float(functional.summed_logprobs(policy, sequences).mean()))
    assert all(math.isfinite(value) for value in seen)
    assert seen[-1] > seen[0] + 1


# Chosen by name


def algo(*overrides: str) -> Selected:
    return load_config(["algo=dpo", *overrides]).algo


def test_options_are_those_of_the_choice() -> None:
    chosen = algo("algo.optimizer=muon", "algo.optimizer_options.momentum=0.5", "algo.lr_schedule=wsd")
    optimizer, schedule = chosen.uses()
    assert (optimizer.component.name, optimizer.config.momentum) == ("muon", 0.5)
    assert (schedule.component.name, schedule.config.decay) == ("wsd", 0.2)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["algo.optimizer=mun"], ["'mun'", "'muon'?", "adamw, ", "muon, paged"]),
        (["algo.optimizer=muon", "algo.optimizer_options.momentm=1"], ["'momentm'", "'momentum'?"]),
        (["algo.optimizer=muon", "algo.optimizer_options.momentum=2"], ["momentum=2", "0 to below 1"]),
        (["algo.optimizer_options.momentum=0.9"], ["'momentum'", "Choices: none"]),
        (["algo.lr_schedule=wsd", "algo.lr_schedule_options.decay=0"], ["decay=0", "above 0"]),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        algo(*overrides)
    for word in (*words, "algo"):
        assert word in str(refused.value)


def test_what_is_used_is_part_of_what_an_algorithm_is() -> None:
    """Runs share stages under it: two that differ in an option, or in the code of their optimizer, are two."""
    plain, other = algo("algo.optimizer=muon"), algo("algo.optimizer=muon", "algo.optimizer_options.momentum=0.5")
    assert plain.identity() != other.identity()
    (named, _) = plain.identity()["uses"]
    assert (named["name"], named["target"]) == ("muon", "alignbench.optimization.muon:Muon")


def test_memory_is_estimated_by_what_an_optimizer_says() -> None:
    found = {}
    for name in ("adamw", "paged_adamw_8bit", "schedule_free"):
        config = load_config(["algo=dpo", f"algo.optimizer={name}"])
        found[name] = next(work.state_bytes for work in workload(config) if work.stage == "dpo")
    assert found == {"adamw": 8, "paged_adamw_8bit": 2, "schedule_free": 12}


def test_a_schedule_reads_its_options() -> None:
    config = OptimizerConfig(learning_rate=1.0, lr_schedule="linear", lr_schedule_options={"final": 0.5})
    made = scheduled(config, torch.nn.Parameter(torch.ones(1)))
    assert [made.next_update() for _ in range(4)] == [1.0, 0.875, 0.75, 0.625]
    made = scheduled(
        replace(config, lr_schedule="wsd", lr_schedule_options={"decay": 0.5}), torch.nn.Parameter(torch.ones(1))
    )
    assert [made.next_update() for _ in range(4)] == [1.0, 1.0, 1.0, 0.5]
