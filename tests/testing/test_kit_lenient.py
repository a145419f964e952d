"""What the contract allows, and a check must let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from alignbench.plugins import Component, resolve
from alignbench.selection import with_defaults
from alignbench.testing import PropertyBroken, checks_of


def run(component: Component, name: str, seed: int = 0) -> str | None:
    (found,) = (check for check in checks_of(component) if check.name == name)
    return found.run(component, seed)


def own(name: str, made: type) -> Component:
    return replace(resolve(name), target=f"{__name__}:{made.__name__}")


# Algorithms


class WholeGroups(resolve("rloo").load()):  # type: ignore[misc]
    """Minibatches of whole groups."""

    def _optimise(self, experience: Any) -> dict[str, float]:
        config = self._config
        rows = torch.arange(config.batch_size).reshape(-1, config.samples_per_prompt)
        for _ in range(config.epochs):
            for part in rows[torch.randperm(len(rows), generator=self._shuffle)].chunk(config.minibatches):
                self._step(experience, part.flatten())
        return {}


class TwoSteps(resolve("rloo").load()):  # type: ignore[misc]
    """Two steps on each batch, whatever its epochs."""

    def _optimise(self, experience: Any) -> dict[str, float]:
        return [super(TwoSteps, self)._optimise(experience) for _ in range(2)][-1]


class Static(resolve("grpo").load()):  # type: ignore[misc]
    """Its loss is stated by a function that needs no class."""

    @staticmethod
    def stated_loss(config: Any, terms: Any) -> Any:
        return resolve("grpo").load().stated_loss(config, terms)


def test_groups_may_stay_whole() -> None:
    component = with_defaults(own("rloo", WholeGroups), {"samples_per_prompt": 8, "batch_size": 64})
    for seed in range(3):
        run(component, "every_epoch_sees_each_row_once", seed)


def test_an_algorithm_may_have_a_loop_of_its_own() -> None:
    assert run(own("rloo", TwoSteps), "temperature_divides_the_logits")


def test_a_static_method_states_a_loss() -> None:
    assert run(own("grpo", Static), "steps_follow_the_stated_loss")


@pytest.mark.parametrize(
    "name", ["every_epoch_sees_each_row_once", "steps_are_those_of_adamw", "metrics_are_what_they_are_called"]
)
def test_groups_may_be_large(name: str) -> None:
    run(with_defaults(resolve("grpo"), {"samples_per_prompt": 64, "batch_size": 128}), name)


def test_an_optimizer_without_betas_is_none_of_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbench.functional.torch.optim.AdamW", lambda groups, **_: torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(PropertyBroken, match="has no betas: it is no AdamW"):
        run(resolve("rloo"), "steps_are_those_of_adamw")
