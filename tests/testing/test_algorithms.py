"""What the checks of algorithms rest on: settings that show every value, steps that leave the clip, terms that are the policy's."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from alignbench import RolloutConfig
from alignbench.plugins import resolve
from alignbench.records import POLICY
from alignbench.selection import with_defaults
from alignbench.testing import PropertyBroken
from alignbench.testing.algorithms import effects, equations, exact, metrics, updates
from alignbench.testing.algorithms.options import NO_NAME, choices, values_of
from alignbench.testing.algorithms.trace import sequences_of, traced, varied_batch
from alignbench.testing.trial import Trial
from alignbench.testing.world import World


def test_every_value_of_every_option_is_drawn() -> None:
    drawn = list(equations.configs(resolve("grpo"), 0))
    for name in ("kl_in", "missing_eos", "scale_by_std", "kl_coef", "std_eps", "length_normalisation"):
        known = {value for config in drawn for value in values_of(config, name)[:1]}
        assert known >= {value for value in values_of(resolve("grpo").config(), name) if name != "std_eps" or value}, (
            name
        )


def test_choices_are_those_that_a_config_names_when_it_refuses() -> None:
    config = resolve("ppo").config()
    assert set(choices(config, "missing_eos")) == {"subtract", "replace", "keep"}
    assert NO_NAME not in choices(config, "value_init")


def test_an_algorithm_is_held_to_its_checks_under_a_users_settings() -> None:
    """Whose first updates leave the policy alone, and whose returns have a lambda of their own."""
    chosen = {"value_warmup": 3, "gae_lambda_value": 0.9}
    component = with_defaults(resolve("ppo"), chosen, where="algo")
    assert component.config().value_warmup == 3
    updates.policy_moves(component, 0)
    metrics.metrics_are_what_they_are_called(component, 0)
    biased = with_defaults(resolve("ppo"), {"kl_in": "loss", "kl_estimator": "k3"}, where="algo")
    assert biased.load().optimum(biased.config(), World(0).problem) is None
    assert biased.load().optimum(exact.exact_config(biased), World(0).problem) is not None


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_steps_leave_the_clip_at_both_ends(name: str) -> None:
    config = next(equations.configs(resolve(name), 0))
    trial = Trial(resolve(name), 0, config=config)
    update = traced(trial, varied_batch(trial))
    last, shown = update.steps[-1], sequences_of(update.batch)
    now, before = (
        equations.logprobs(trial.policy, table.double(), shown, 1.0)
        for table in (last.role(POLICY).before, update.start[POLICY])
    )
    ratio = (now - before).exp()[shown.response_mask]
    assert float((ratio > 1.5).double().mean()) > 0.1
    assert float((ratio < 0.6).double().mean()) > 0.1


def test_terms_are_what_the_policy_says() -> None:
    trial = Trial(resolve("ppo"), 0, shared=True)
    shown = sequences_of(varied_batch(trial))
    found = equations.logprobs(trial.policy, trial.policy.logits.detach().double(), shown, 0.7)
    torch.testing.assert_close(found.float(), trial.policy.logprobs(shown, temperature=0.7).logprobs.detach())
    role = trial.policy.role("value")
    assert role.reads_policy
    logits = trial.policy.logits.detach().double()
    values = equations.values(trial.policy, role.table.detach().double(), logits, shown, shared=True)
    inside = torch.arange(values.shape[1])[None] <= shown.response_mask.sum(1, keepdim=True)
    torch.testing.assert_close(values.float()[inside], role.values(shown).detach()[inside])
    assert not bool(values[~inside].any())


@dataclass
class Idle(RolloutConfig):
    """PPO's base with an option that nobody reads."""

    idle: float = 0.5
    """Read nowhere."""


@dataclass
class Excused(Idle):
    """The same, with the reason."""

    inert: ClassVar[Mapping[str, str]] = {"idle": "it is read by the sampler"}


def test_an_option_that_does_nothing_needs_a_reason() -> None:
    class Steps:
        """Moves the weights by all other options."""

        def __init__(self, config: Any, *, policy: Any, updates: int, seeds: Any) -> None:
            self.config, self.policy = config, policy

        def update(self, batch: Any) -> Any:
            from alignbench import UpdateReport

            known = {f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config) if f.name != "idle"}
            with torch.no_grad():
                self.policy.logits += zlib.crc32(repr(known).encode()) % 1000 / 1000
            return UpdateReport({"known": 0.0}, optimizer_steps=1)

    component = dataclasses.replace(resolve("ppo"), config=Idle)
    object.__setattr__(component, "load", lambda: Steps)
    with pytest.raises(PropertyBroken, match="^idle changed nothing in 2 updates"):
        effects.every_option_acts(component, 0)
    excused = dataclasses.replace(component, config=Excused)
    object.__setattr__(excused, "load", lambda: Steps)
    effects.every_option_acts(excused, 0)
