"""Checks of optimizers of weights: on a few tensors, with gradients that are known."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.errors import UserError
from alignbench.optimizer_config import OptimizerConfig
from alignbench.plugins import Component
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.training.acting import options_act

SHAPES: Mapping[str, Sequence[tuple[int, ...]]] = {"policy": ((4, 3), (3,), (2, 3, 2)), "value": ((1, 3), (1,))}
"""Of the weights of two roles: a matrix, a vector, a tensor, and a head."""
RATE = 0.1
STEPS = 200

check = CheckList()
Gradient = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Trial:
    """An optimizer over weights of its own, drawn from the seed."""

    optimizer: torch.optim.Optimizer
    groups: Mapping[str, Sequence[torch.nn.Parameter]]

    @property
    def weights(self) -> list[torch.nn.Parameter]:
        return [weights for group in self.groups.values() for weights in group]

    def values(self) -> list[Tensor]:
        return [weights.detach().clone() for weights in self.weights]

    def step(self, gradient: Gradient, rate: float | None = None) -> None:
        """As an algorithm steps: gradients are taken after `zero_grad`."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] if rate is None else rate
        self.optimizer.zero_grad(set_to_none=True)
        for weights in self.weights:
            weights.grad = gradient(weights.detach())
        self.optimizer.step()


def trial(component: Component, seed: int, config: Any = None, **settings: Any) -> Trial:
    """Raises NotApplicable where it cannot be built here, as on a machine without a GPU."""
    rng = Seeds(seed).torch("weights")
    groups = {
        role: [torch.nn.Parameter(torch.randn(shape, generator=rng)) for shape in shapes]
        for role, shapes in SHAPES.items()
    }
    given = [{"params": list(own), "name": role} for role, own in groups.items()]
    chosen = OptimizerConfig(**({"learning_rate": RATE, "weight_decay": 0.0} | settings))
    try:
        made = component.load()(config or component.config(), groups=given, settings=chosen)
    except UserError as error:
        raise NotApplicable(f"it cannot be built here: {error}") from error
    return Trial(made, groups)


def noise(seed: int) -> Callable[[Tensor], Tensor]:
    rng = Seeds(seed).torch("gradients")

    def gradient(weights: Tensor) -> Tensor:
        return torch.randn(weights.shape, generator=rng)

    return gradient


def apart(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))


@check(
    causes="a step along the gradient instead of against it, or a state that is shared between weights.", within="half"
)
def goes_downhill(component: Component, seed: int) -> str:
    """On a quadratic loss the distance from the minimum falls, at a rate that falls to 0."""
    made = trial(component, seed)
    before = sum(float(w.square().sum()) for w in made.values())
    for number in range(STEPS):
        made.step(lambda weights: weights.clone(), RATE * (1 - number / STEPS))
    after = sum(float(w.square().sum()) for w in made.values())
    if not after <= 0.5 * before:
        raise PropertyBroken(f"The loss went from {before:.3g} to {after:.3g} in {STEPS} steps.")
    return f"the loss fell to {after / before:.2g} of itself, of at most 0.5"


@check(causes="noise of its own, a division by the size of a gradient, or weight decay where none is asked for.")
def zero_gradients_move_nothing(component: Component, seed: int) -> None:
    """Gradients of 0, and none at all, leave every weight as it is, bit for bit, where there is no weight decay."""
    for what, gradient in (("of 0", torch.zeros_like), ("that are None", lambda weights: None)):
        made = trial(component, seed)
        before = made.values()
        for _ in range(3):
            made.step(gradient)
        if not all(torch.equal(a, b) for a, b in zip(before, made.values(), strict=True)):
            raise PropertyBroken(f"Gradients {what} moved a weight by {apart(before, made.values()):.2g}.")


@check(
    causes="settings.weight_decay that is not read, added to the gradient, or not multiplied by the learning rate.",
    within="1e-5",
)
def weight_decay_is_decoupled(component: Component, seed: int) -> str:
    """A step on gradients of 0 takes weight_decay times the learning rate of every weight, and nothing else."""
    made = trial(component, seed, weight_decay=0.5)
    wanted = [weights * (1 - RATE * 0.5) for weights in made.values()]
    made.step(torch.zeros_like)
    if not (off := apart(wanted, made.values())) <= 1e-5:
        raise PropertyBroken(f"weight_decay=0.5, learning_rate={RATE:g}: a weight is off by {off:.2g}.")
    return f"off by {off:.1g}, of at most 1e-05"


@check(
    causes="a learning rate that is kept from the beginning: the schedule writes each group's `lr` before every update."
)
def learning_rate_is_read_at_each_step(component: Component, seed: int) -> None:
    """A step with `lr` 0 in every group moves nothing, and one with the rate again does."""
    made, gradient = trial(component, seed), noise(seed)
    before = made.values()
    made.step(gradient, 0.0)
    if moved := apart(before, made.values()):
        raise PropertyBroken(f"lr=0 moved a weight by {moved:.2g}.")
    made.step(gradient, RATE)
    if still := [tuple(a.shape) for a, b in zip(before, made.values(), strict=True) if torch.equal(a, b)]:
        raise PropertyBroken(f"lr={RATE:g} left the weights of shape {still[0]} as they were.")


@check(causes="groups that are made anew without their `name`, or weights that are left out.")
def groups_keep_their_names(component: Component, seed: int) -> None:
    """Every weight is in one of its groups, under the name of its role: so the schedule finds it."""
    made = trial(component, seed)
    for role, own in made.groups.items():
        found = [w for group in made.optimizer.param_groups if group.get("name") == role for w in group["params"]]
        if sorted(map(id, found)) != sorted(map(id, own)):
            raise PropertyBroken(f"Its groups named {role!r} hold {len(found)} of that role's {len(own)} weights.")


@check(causes="what `state_dict` leaves out (a counter, a moment), or a state that load_state_dict puts elsewhere.")
def goes_on_from_its_state(component: Component, seed: int) -> None:
    """Stopped after any step and built anew from its state, it goes on to the same weights, bit for bit."""
    for stop in (1, 4):
        whole, gradient = trial(component, seed, weight_decay=0.01), noise(seed)
        half, same = trial(component, seed, weight_decay=0.01), noise(seed)
        for number in range(6):
            whole.step(gradient, RATE / (1 + number))
            if number == stop:
                state = _kept(half.optimizer.state_dict())
                again = trial(component, seed, weight_decay=0.01)
                with torch.no_grad():
                    for weights, saved in zip(again.weights, half.values(), strict=True):
                        weights.copy_(saved)
                again.optimizer.load_state_dict(state)
                half = again
            half.step(same, RATE / (1 + number))
        if not all(torch.equal(a, b) for a, b in zip(whole.values(), half.values(), strict=True)):
            raise PropertyBroken(
                f"Resumed after {stop} steps, a weight is {apart(whole.values(), half.values()):.2g} from where it should be."
            )


def _kept(state: Any) -> Any:
    """A copy, as a checkpoint keeps it. Raises PropertyBroken for what a checkpoint does not hold."""
    if isinstance(state, Mapping):
        return {key: _kept(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_kept(value) for value in state)
    if not isinstance(state, Tensor | int | float | str | bool | None):
        raise PropertyBroken(f"Its state holds a {type(state).__name__}: tensors and plain values can be kept.")
    return copy.deepcopy(state)


@check(causes="an option that is not read, or a literal in its place.")
def every_option_acts(component: Component, seed: int) -> None:
    """Another value of each of its own options ends at other weights."""

    def outcome(config: Any) -> Sequence[float]:
        made, gradient = trial(component, seed, config), noise(seed)
        for _ in range(5):
            made.step(lambda weights: weights + gradient(weights))
        return torch.cat([weights.flatten() for weights in made.values()]).tolist()

    if not dataclasses.fields(component.config):
        raise NotApplicable("it has no options of its own")
    options_act(component, outcome)
