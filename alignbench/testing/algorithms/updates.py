"""Checks of an algorithm's updates: what must happen at every one. What must make no difference: invariance.py."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignbench.errors import NonFiniteError
from alignbench.optimizer_config import RolloutConfig
from alignbench.plugins import Component
from alignbench.records import POLICY, Consumes, ScoredRollout
from alignbench.testing.algorithms.trace import Update, traced
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.schedule import share_of_rate
from alignbench.testing.trial import (
    TEMPERATURE,
    Trial,
    changed_fields,
    counting_steps,
    gap,
    has,
    own_rows,
    reference_table,
    snapshot,
    unknown_reference,
    watching_rates,
)

VALUES_APART, KL_OFF, GRADIENT_OFF = 1e-5, 1e-4, 0.02
"""A first value from the reward model's; `kl` from the batch's own, as a share of it where it is above 1; a gradient from the one
that temperature gives, as a share of its largest entry."""

ONE_STEP: dict[str, Any] = {"epochs": 1, "minibatches": 1}

check = CheckList()


@check(causes="a step that is never taken, a learning rate of 0, or a loss that does not depend on the policy.")
def policy_moves(component: Component, seed: int) -> None:
    """An update moves the policy's weights, and leaves them finite."""
    trial = Trial(component, seed)
    trial.update()
    if not bool(torch.isfinite(trial.weights()).all()):
        raise PropertyBroken("A weight is NaN or infinite after one update.")
    if float(trial.moved().abs().max()) == 0:
        raise PropertyBroken("No weight changed in one update.")


@check(causes="the reference's or the reward model's parameters among those that are optimised, or freeze_reference().")
def nothing_else_moves(component: Component, seed: int) -> None:
    """The reference and the reward model stand still."""
    trial = Trial(component, seed)
    shown = trial.world.everything()
    roles = trial.world.policy()
    for _ in range(2):
        trial.update()
    if not torch.equal(reference_table(trial.policy, shown), reference_table(roles, shown)):
        raise PropertyBroken("The reference's log-probabilities changed in two updates.")
    mine, theirs = (policy.role("reward").table for policy in (trial.policy, roles))
    if not torch.equal(mine, theirs):
        raise PropertyBroken(f"The scalar role 'reward' changed by {float((mine - theirs).detach().abs().max()):.2g}.")


@check(
    causes="a value network that is scaled, shifted or moved between its start from the reward model and the first update.",
    within=f"each value at most {VALUES_APART:g} apart",
)
def values_start_as_the_reward_model(component: Component, seed: int) -> str:
    """Where a scalar role of its own starts from the reward model, its first values are the reward model's numbers."""
    trial = Trial(component, seed)
    if not (made := [name for name in trial.config.scalar_roles if name in trial.policy.scalars()]):
        raise NotApplicable("it trains no scalar role beside the policy")
    most = 0.0
    for name in made:
        mine, known = (trial.policy.role(role).table.detach() for role in (name, "reward"))
        apart = float((mine - known).abs().max())
        if not bool(mine.any()):
            continue  # zeros: it starts from the policy, whose head is zero
        if not apart <= VALUES_APART:
            raise PropertyBroken(f"A value of {name!r} is {apart:.3g} away from the reward model's.")
        most = max(most, apart)
    return f"{most:.2g} apart, of at most {VALUES_APART:g}"


@check(causes="losses of two roles added and sent back together, or no torch.no_grad() around what is only measured.")
def roles_take_turns(component: Component, seed: int) -> None:
    """Each role's result is sent back before another role is asked for with gradients: they may share a base."""
    trial = Trial(component, seed, micro_batch_size=5)
    for _ in range(2):
        trial.update()
    if trial.policy.out_of_turn:
        raise PropertyBroken(f"It asked for {trial.policy.out_of_turn}.")


@check(causes="an operation in place (+=, masked_fill_, clamp_) on a tensor of the batch.")
def batch_stays_as_it_was(component: Component, seed: int) -> None:
    """An update changes nothing in the batch that it is given."""
    trial = Trial(component, seed)
    batch = trial.batch()
    before = snapshot(batch)
    trial.update(batch)
    if names := changed_fields(before, batch):
        raise PropertyBroken(f"The update changed {', '.join(names)}.")


@check(causes="a tensor in place of float(...), a division by a count that is 0, or no metrics at all.")
def metrics_are_finite_floats(component: Component, seed: int) -> None:
    """Every metric of every update is a finite float."""
    trial = Trial(component, seed)
    for _ in range(3):
        metrics = trial.update().metrics
        if not metrics:
            raise PropertyBroken("The report has no metrics.")
        for name, value in metrics.items():
            if type(value) is not float:
                raise PropertyBroken(f"The metric {name!r} is of type {type(value).__name__}.")
            if not math.isfinite(value):
                raise PropertyBroken(f"The metric {name!r} is {value}.")


@check(causes="a literal in UpdateReport, a count per epoch, or an optimizer that is stepped elsewhere too.")
def reports_the_steps_it_makes(component: Component, seed: int) -> None:
    """`optimizer_steps` counts the steps that were made."""
    trial = Trial(component, seed)
    with counting_steps() as made:
        reported = sum(trial.update().optimizer_steps for _ in range(2))
    if reported != len(made) or not made:
        raise PropertyBroken(f"It reports {reported} steps in two updates and made {len(made)}.")


@check(
    causes="minibatches whose gradients are summed into one step, an epoch loop that returns early, a lost remainder."
)
def steps_for_every_minibatch(component: Component, seed: int) -> None:
    """An update makes epochs x minibatches optimizer steps."""
    asked: dict[str, Any] = {"epochs": 3, "minibatches": 2}
    if not any(has(component, name) for name in asked):
        raise NotApplicable("its config has neither epochs nor minibatches")
    wanted = math.prod(number for name, number in asked.items() if has(component, name))
    trial = Trial(component, seed, **asked)
    with counting_steps() as made:
        trial.update()
    if len(made) != wanted:
        said = ", ".join(f"{name}={number}" for name, number in asked.items() if has(component, name))
        raise PropertyBroken(f"One update made {len(made)} optimizer steps where {said} make {wanted}.")


@check(causes="torch's global generator (torch.randperm without generator=), `random`, or the order of a set.")
def same_seed_same_updates(component: Component, seed: int) -> None:
    """The same seeds give the same updates bit for bit, whatever the global generators hold."""

    def run(world: int) -> tuple[Tensor, list[Mapping[str, float]]]:
        kept = random.getstate()
        with torch.random.fork_rng():
            torch.manual_seed(world)
            random.seed(world)
            trial = Trial(component, seed, minibatches=2)
            metrics = [trial.update().metrics for _ in range(3)]
        random.setstate(kept)
        return trial.weights(), metrics

    (weights, metrics), (again, same) = run(1), run(2)
    if not torch.equal(weights, again):
        raise PropertyBroken(f"The weights differ by {float((weights - again).abs().max()):.2g} after three updates.")
    if names := [name for one, two in zip(metrics, same, strict=True) for name in one if one[name] != two[name]]:
        raise PropertyBroken(f"The metric {names[0]!r} differs.")


@check(causes="something left out of state_dict: the shuffling generator, a controller's value, a network, a counter.")
def goes_on_from_its_state(component: Component, seed: int) -> None:
    """Built anew and given its state, from a file, it goes on bit for bit as if never stopped."""
    adaptive: dict[str, Any] = {"minibatches": 2, "lr_schedule": "cosine", "kl_target": 0.05, "kl_horizon": 100.0}
    trial = Trial(component, seed, **adaptive)
    for _ in range(2):
        trial.update()
    buffer = io.BytesIO()
    torch.save(copy.deepcopy(trial.optimizer.state_dict()), buffer)
    buffer.seek(0)
    resumed = trial.resumed(torch.load(buffer, weights_only=True))
    for update in range(3):
        one, two = trial.update().metrics, resumed.update().metrics
        if names := sorted(name for name in one if one[name] != two.get(name)):
            raise PropertyBroken(
                f"{update + 1} updates after the stop, {names[0]!r} is {two.get(names[0])} and would have been "
                f"{one[names[0]]}."
            )
        if not torch.equal(trial.weights(), resumed.weights()):
            raise PropertyBroken(
                f"{update + 1} updates after the stop, the weights differ by {gap(trial, resumed):.2g}."
            )


@check(
    causes="an optimizer that is built with the learning rate and never asked for the schedule, or asked once a step."
)
def learning_rate_follows_its_schedule(component: Component, seed: int) -> None:
    """The policy's learning rate at every step is that of lr_schedule and warmup_updates at its update."""
    updates, warmup = 6, 2
    for schedule in ("constant", "linear", "cosine"):
        trial = Trial(component, seed, updates=updates, lr_schedule=schedule, warmup_updates=warmup, learning_rate=0.5)
        for update in range(updates):
            with watching_rates(trial.policy) as rates:
                trial.update()
            wanted = 0.5 * share_of_rate(update, updates=updates, schedule=schedule, warmup=warmup)
            for rate in rates:
                if not math.isclose(rate, wanted, rel_tol=1e-6, abs_tol=1e-9):
                    raise PropertyBroken(
                        f"lr_schedule={schedule}, warmup_updates={warmup}, update {update} of {updates}: "
                        f"the learning rate is {rate:.4g} and should be {wanted:.4g}."
                    )


@check(causes="a step that is not the optimizer's: weights averaged, copied or decayed by hand.")
def without_learning_rate_nothing_moves(component: Component, seed: int) -> None:
    """With learning_rate=0 the weights stay as they are."""
    trial = Trial(component, seed, learning_rate=0.0)
    trial.update()
    if float(trial.moved().abs().max()) > 0:
        raise PropertyBroken(f"A weight moved by {float(trial.moved().abs().max()):.2g}.")


@check(causes="no functional.require_finite on scores and loss, or one that comes after the first optimizer step.")
def refuses_what_is_not_finite(component: Component, seed: int) -> None:
    """A score, a reference or a loss that is NaN or infinite raises NonFiniteError before any step."""
    _refuses(Trial(component, seed), "log-probabilities that are NaN", poison=True)
    for bad in (math.nan, math.inf):
        trial = Trial(component, seed)
        batch = trial.batch()
        if isinstance(batch, ScoredRollout):
            scores = batch.scores.clone()
            scores[len(scores) // 2] = bad
            _refuses(trial, f"a score that is {bad}", dataclasses.replace(batch, scores=scores))
        if spoilt := unknown_reference(batch):
            _refuses(trial, "a reference log-probability that is NaN", spoilt)
            break


def _refuses(trial: Trial, what: str, batch: Any = None, *, poison: bool = False) -> None:
    batch = trial.batch() if batch is None else batch
    if poison:
        with torch.no_grad():
            for parameter in trial.policy.trainable():
                parameter.fill_(math.nan)
    with counting_steps() as made:
        try:
            trial.update(batch)
        except NonFiniteError:
            pass
        except Exception as error:
            raise PropertyBroken(f"With {what} it raised {type(error).__name__} in place of NonFiniteError.") from error
        else:
            raise PropertyBroken(f"With {what} it raised nothing.")
    if made:
        raise PropertyBroken(f"With {what} it made {len(made)} optimizer steps before it raised.")


@check(
    causes="the mean over tokens, another estimator, the sampler's own log-probabilities, a mask one token off.",
    within=f"a difference of at most {KL_OFF:g} nats, or of that share of the KL where it is above 1",
)
def kl_is_in_nats_per_response(component: Component, seed: int) -> str:
    """The metric `kl` is the mean over the policy's own samples of log pi - log pi_ref of a whole response, before the update."""
    trial = Trial(component, seed)
    if not isinstance(trial.config, RolloutConfig) or not bool(
        (own := own_rows(trial.config, trial.config.batch_size)).any()
    ):
        raise NotApplicable("its batches are not sampled from the policy")
    batch = trial.batch()
    assert isinstance(batch, ScoredRollout)
    shown, heat = batch.rollout.samples.sequences, trial.config.temperature
    with torch.no_grad():
        mine, theirs = (
            trial.policy.logprobs(shown, role=r, temperature=heat).logprobs for r in ("policy", "reference")
        )
    wanted = float(torch.where(shown.response_mask.bool(), mine - theirs, 0.0).sum(1)[own].mean())
    batch.rollout.logprobs.add_(0.05 * shown.response_mask)  # a sampler may compute in fewer bits than a pass does
    metrics = trial.update(batch).metrics
    if "kl" not in metrics:
        raise NotApplicable("it reports no `kl`")
    off, allowed = abs(metrics["kl"] - wanted), KL_OFF * max(abs(wanted), 1.0)
    if not off <= allowed:
        raise PropertyBroken(f"`kl` is {metrics['kl']:.4f}, and the batch's is {wanted:.4f} nats per response.")
    return f"{off:.2g} nats off, of at most {allowed:.2g}"


@check(
    causes="config.temperature left out of one of: policy, reference, the log-probabilities before and after a step.",
    within=f"off by at most {GRADIENT_OFF:g} of the gradient's largest entry",
)
def temperature_divides_the_logits(component: Component, seed: int) -> str:
    """At temperature T the gradient is that of the logits / T at temperature 1, divided by T."""
    if getattr(component.config(), "samples_from", None) != POLICY:
        raise NotApplicable("its batches are not sampled from the policy")
    linear: dict[str, Any] = {"max_grad_norm": 0.0, **ONE_STEP}
    warm = Trial(component, seed, **linear)
    plain = Trial(component, seed, temperature=1.0, **linear)
    plain.policy.scale_logits(1 / TEMPERATURE)
    batch = warm.batch()
    assert isinstance(batch, ScoredRollout)
    rollout = dataclasses.replace(batch.rollout, temperature=1.0)
    found = _first_gradient(traced(warm, batch))
    expected = _first_gradient(traced(plain, dataclasses.replace(batch, rollout=rollout))) / TEMPERATURE
    error = float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-12)
    if not error <= GRADIENT_OFF:
        raise PropertyBroken(f"The gradient at temperature {TEMPERATURE} is off by {error:.2g} of its size.")
    return f"off by {error:.2g}, of at most {GRADIENT_OFF:g}"


def _first_gradient(update: Update) -> Tensor:
    """Of the policy's first step: an algorithm may have a loop of its own beside epochs and minibatches."""
    for role in (role for step in update.steps for role in step.roles if role.role == POLICY):
        return role.gradient
    raise PropertyBroken("An update made no step on the policy.")


def supported(component: Component) -> bool:
    """Whether there is anything to update."""
    consumes = getattr(component.config, "consumes", None)
    return isinstance(consumes, Consumes) and consumes is not Consumes.NOTHING
