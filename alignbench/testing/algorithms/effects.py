"""Checks that what a user sets is what happens: every option of an algorithm acts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.plugins import Component
from alignbench.testing.algorithms.options import built, choices, contexts, own_options, values_of
from alignbench.testing.algorithms.trace import varied_batch, weights
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.trial import Trial, has, settings

FAR = 1e-4
"""A number that is far smaller: a limit that is never reached shows no smaller change."""
UPDATES = 2
OTHER = object()
"""Any other value than an option has."""

check = CheckList()


@dataclass(frozen=True)
class Outcome:
    """What some updates did: all weights, the value network's included, the steps, and what is reported."""

    weights: Tensor
    steps: tuple[int, ...]
    stops: tuple[bool, ...]
    metrics: tuple[float, ...]

    def same(self, other: Outcome, *, metrics: bool) -> bool:
        if not torch.equal(self.weights, other.weights) or (self.steps, self.stops) != (other.steps, other.stops):
            return False
        return not metrics or self.metrics == other.metrics


class Outcomes:
    """Outcomes by settings, each made once."""

    def __init__(self, component: Component, seed: int) -> None:
        self._component, self._seed = component, seed
        self._known: dict[tuple[str, bool, bool], Outcome] = {}

    def of(self, config: Any, *, sampled: bool, shared: bool) -> Outcome:
        """`sampled`: batches as a run draws them; else those of `varied_batch`, which only options of sampling change."""
        key = (repr(config), sampled, shared)
        if key not in self._known:
            trial = Trial(self._component, self._seed, config=config, shared=shared)
            reports = [trial.update(trial.batch() if sampled else varied_batch(trial)) for _ in range(UPDATES)]
            self._known[key] = Outcome(
                torch.cat([table.detach().flatten() for table in weights(trial.policy).values()]),
                tuple(report.optimizer_steps for report in reports),
                tuple(bool(report.stop) for report in reports),
                tuple(value for report in reports for value in report.metrics.values()),
            )
        return self._known[key]


@check(
    causes="an option that is read nowhere, overwritten by a literal, swapped with another, or used at one place of two."
)
def every_option_acts(component: Component, seed: int) -> None:
    """Every option changes the weights within two updates, under some setting of the others; a name or a count at least a figure."""
    base = settings(component, learning_rate=0.3, adam_eps=1e-5, epochs=3, minibatches=2)
    names, outcomes = own_options(component), Outcomes(component, seed)
    every = contexts(base, names)
    inert = component.config.inert  # type: ignore[attr-defined]
    for name in names:
        now = getattr(base, name)
        # Of a name, every choice must act; one that takes any text has no choices, and nothing to compare it with.
        wanted = [choice for choice in choices(base, name) if choice != now] if isinstance(now, str) else [OTHER]
        for value in wanted:
            said = name if value is OTHER else f"{name}={value}"
            ways = _ways(component, every)
            if said not in inert and not any(_acts(outcomes, c, name, value, **way) for c, way in ways):
                raise PropertyBroken(
                    f"{said} changed nothing in {UPDATES} updates, under {len(every)} settings of the other options. An option that "
                    f"cannot act in an update is named in {component.config.__name__}.inert, with the reason."
                )


def _ways(component: Component, every: list[Any]) -> Iterator[tuple[Any, dict[str, bool]]]:
    """How an option may come to act: in the update, where a value network reads the policy's states, or by what is sampled."""
    shares = (False, True) if component.config.scalar_roles else (False,)  # type: ignore[attr-defined]
    for context in every:
        for shared in shares:
            yield context, {"sampled": False, "shared": shared}
    for context in every[:2]:
        yield context, {"sampled": True, "shared": False}


def _acts(outcomes: Outcomes, context: Any, name: str, value: Any, *, sampled: bool, shared: bool) -> bool:
    """Whether the option, set to `value`, makes a difference here."""
    now = getattr(context, name)
    others = values_of(context, name)[1:] if value is OTHER else [value]
    if isinstance(now, float) and not isinstance(now, bool):
        others.append(FAR * now)
    counts = not isinstance(now, float | bool | None)
    for other in others:
        if other == now or (changed := built(context, **{name: other})) is None:
            continue
        one, two = (outcomes.of(c, sampled=sampled, shared=shared) for c in (context, changed))
        if not one.same(two, metrics=counts or sampled):
            return True
    return False


@check(causes="a limit that is compared with another figure, or a stop that is only logged.")
def stops_above_its_kl(component: Component, seed: int) -> None:
    """With kl_stop, an update whose `kl` is above it says that training stops; one whose `kl` is below does not."""
    if not has(component, "kl_stop"):
        raise NotApplicable("it has no kl_stop")
    plain = Trial(component, seed)
    if not (kl := plain.update().metrics.get("kl", 0.0)) > 0:
        raise NotApplicable("its first batch has no KL above 0")
    for share in (0.5, 2.0):
        report = Trial(component, seed, kl_stop=share * kl).update()
        if bool(report.stop) != (share < 1):
            raise PropertyBroken(f"kl_stop={share * kl:.3g} and a KL of {kl:.3g}: `stop` is {report.stop!r}.")
