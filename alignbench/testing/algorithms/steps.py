"""Checks of single optimizer steps: which rows they learn from, how many at a time, and that they are the optimizer's own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from alignbench.optimizer_config import RolloutConfig
from alignbench.plugins import Component
from alignbench.records import POLICY
from alignbench.testing.algorithms.trace import RoleStep, Update, traced, varied_batch
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.schedule import share_of_rate
from alignbench.testing.trial import Trial, has

ROUNDING = 1e-4
"""Of the largest step."""
EPOCHS = 16
"""Where groups are kept whole there may be two splits alone: chance makes all epochs alike once in 30,000 times."""

check = CheckList()


@check(
    causes="a clip over all roles at once, the norm of a part, weight decay within the gradient, a default for a setting.",
    within=f"a step at most {ROUNDING:g} of its size apart",
)
def steps_are_those_of_adamw(component: Component, seed: int) -> str:
    """A step is AdamW's on the gradient as clipped role by role, with learning_rate, lr_schedule, adam_eps and weight_decay."""
    largest = 0.0
    for limit, eps, decay in ((0.0, 1e-2, 0.1), (0.02, 1e-5, 0.0), (1e-3, 0.3, 0.05)):
        chosen: dict[str, Any] = {
            "learning_rate": 0.1,
            "lr_schedule": "linear",
            "warmup_updates": 1,
            "adam_eps": eps,
            "weight_decay": decay,
            "max_grad_norm": limit,
        }
        trial = Trial(component, seed, epochs=2, minibatches=2, **chosen)
        moments: dict[str, Moments] = {}
        for number in range(3):
            update = traced(trial, varied_batch(trial))
            for role in (role for step in update.steps for role in step.roles):
                if limit > 0 and not float(role.gradient.norm()) <= limit * 1.001:
                    raise PropertyBroken(
                        f"max_grad_norm={limit:g}: a gradient of the role {role.role!r} has norm {float(role.gradient.norm()):.3g}."
                    )
                rate = role.rate
                if role.role == POLICY:
                    rate = 0.1 * share_of_rate(number, updates=trial.config.updates, schedule="linear", warmup=1)
                wanted = moments.setdefault(role.role, Moments(role.before)).stepped(role, rate, eps, decay)
                size = float((role.after - role.before).abs().max())
                off = float((wanted - role.after).abs().max()) / max(size, 1e-3)
                if not off <= ROUNDING:
                    raise PropertyBroken(
                        f"learning_rate={rate:.3g}, adam_eps={eps:g}, weight_decay={decay:g}: a step of the role {role.role!r} is off by "
                        f"{off:.2g} of its size."
                    )
                largest = max(largest, off)
    return f"at most {largest:.1g} of a step's size, of at most {ROUNDING:g}"


class Moments:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) in float64."""

    def __init__(self, like: Tensor) -> None:
        self._first, self._second, self._steps = torch.zeros_like(like).double(), torch.zeros_like(like).double(), 0

    def stepped(self, role: RoleStep, rate: float, eps: float, decay: float) -> Tensor:
        """Where the step ends."""
        if role.betas is None:
            raise PropertyBroken(f"The optimizer of the role {role.role!r} has no betas: it is no AdamW.")
        one, two = role.betas
        gradient = role.gradient.double()
        self._steps += 1
        self._first = one * self._first + (1 - one) * gradient
        self._second = two * self._second + (1 - two) * gradient**2
        mean, square = self._first / (1 - one**self._steps), self._second / (1 - two**self._steps)
        return role.before.double() * (1 - rate * decay) - rate * mean / (square.sqrt() + eps)


@check(
    causes="a remainder that is dropped, one order for all epochs, rows drawn with replacement, or a slice off by one."
)
def every_epoch_sees_each_row_once(component: Component, seed: int) -> None:
    """Each epoch learns from each response of the batch once, in minibatches of one size; not all epochs in the same minibatches."""
    if not all(has(component, name) for name in ("epochs", "minibatches")) or not issubclass(
        component.config, RolloutConfig
    ):
        raise NotApplicable("it has no epochs and minibatches of rollouts")
    trial = Trial(component, seed, rows=32, epochs=EPOCHS, minibatches=2)
    batch = varied_batch(trial)
    update = traced(trial, batch)
    halves = [tuple(sorted(set(step.rows.tolist()))) for step in update.steps]
    for epoch in range(EPOCHS):
        seen = Counter(row for half in halves[2 * epoch : 2 * epoch + 2] for row in half)
        if seen != Counter(range(trial.config.batch_size)) or len({len(half) for half in halves}) > 1:
            sizes = ", ".join(str(len(half)) for half in halves[2 * epoch : 2 * epoch + 2])
            raise PropertyBroken(
                f"Epoch {epoch + 1} saw {len(seen)} of {trial.config.batch_size} responses, in minibatches of {sizes}."
            )
    if len(set(zip(halves[::2], halves[1::2], strict=True))) == 1:
        raise PropertyBroken(f"All {EPOCHS} epochs have the same minibatches.")


@check(
    causes="micro_batch_size that is not read, halved or doubled, or a config whose rows_with_gradients is another's."
)
def holds_the_rows_that_it_plans(component: Component, seed: int) -> None:
    """At most rows_with_gradients rows have activations held for gradients at a time: estimates of memory rest on it."""
    for size in (3, 16):
        trial = Trial(component, seed, micro_batch_size=size)
        update: Update = traced(trial, varied_batch(trial))
        most, planned = max((step.most for step in update.steps), default=0), trial.config.rows_with_gradients
        if most > planned:
            raise PropertyBroken(
                f"micro_batch_size={size}: it asked for {most} rows at once; its config plans {planned}."
            )
