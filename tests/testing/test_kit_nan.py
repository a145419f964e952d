"""A NaN is no small number: a check that compares with it must fail."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from alignbench.plugins import resolve
from alignbench.testing import PropertyBroken, checks_of
from alignbench.testing.algorithms.trace import Update, traced


class Lost(resolve("rloo").load()):  # type: ignore[misc]
    """Its weights become NaN with whole batches, after whose second update nothing looks at them."""

    made = 0

    def update(self, batch: Any) -> Any:
        report = super().update(batch)
        self.made += 1
        if self.made == 2 and self._config.micro_batch_size == self._config.batch_size:
            with torch.no_grad():
                self._policy.logits[0, 0] = math.nan
        return report


class Silent(resolve("rloo").load()):  # type: ignore[misc]
    """Its figures are NaN."""

    def update(self, batch: Any) -> Any:
        report = super().update(batch)
        return replace(report, metrics=dict.fromkeys(report.metrics, math.nan))


def run(name: str, target: str = "") -> None:
    component = resolve("rloo")
    (found,) = (check for check in checks_of(component) if check.name == name)
    found.run(replace(component, target=target) if target else component, 0)


@pytest.mark.parametrize(
    ("made", "name"), [(Lost, "micro_batches_change_memory_alone"), (Silent, "kl_is_in_nats_per_response")]
)
def test_a_nan_is_not_within_a_bound(made: type, name: str) -> None:
    with pytest.raises(PropertyBroken, match=r"\bnan\b"):
        run(name, f"{__name__}:{made.__name__}")


@pytest.mark.parametrize(
    ("where", "part", "name"),
    [
        ("equations", "gradient", "steps_follow_the_stated_loss"),
        ("steps", "after", "steps_are_those_of_adamw"),
        ("updates", "gradient", "temperature_divides_the_logits"),
    ],
)
def test_a_step_of_nan_is_no_step(where: str, part: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an optimizer that nothing guards: the last step of an update is one of NaN."""

    def spoilt(*args: Any) -> Update:
        update = traced(*args)
        *steps, last = update.steps
        roles = tuple(replace(role, **{part: torch.full_like(role.after, math.nan)}) for role in last.roles)
        return replace(update, steps=(*steps, replace(last, roles=roles)))

    monkeypatch.setattr(f"alignbench.testing.algorithms.{where}.traced", spoilt)
    with pytest.raises(PropertyBroken, match=r"\bnan\b"):
        run(name)
