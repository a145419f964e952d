"""Checks of what an algorithm reports: a figure's name means the same in every algorithm's curves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from alignbench.optimizer_config import PreferenceConfig
from alignbench.plugins import Component
from alignbench.records import POLICY, REFERENCE, ScoredRollout
from alignbench.records.batches import LabelledBatch, PreferenceBatch
from alignbench.testing.algorithms.equations import favour, logprobs, stated_value, values
from alignbench.testing.algorithms.trace import Update, sequences_of, traced, varied_batch
from alignbench.testing.checks import CheckList, PropertyBroken
from alignbench.testing.schedule import share_of_rate
from alignbench.testing.trial import Trial, own_rows

CLOSE = 1e-3
"""Of a figure, or of 1 where it is smaller: float32 stays far below it."""
UPDATES = 6
# The return of every token is then the score of its response.
UNDISCOUNTED: dict[str, Any] = {
    "gamma": 1.0,
    "gae_lambda": 1.0,
    "gae_lambda_value": None,
    "kl_coef": 0.0,
    "missing_eos": "keep",
    "whiten_rewards": False,
}
SHARES = ("clip_fraction", "value_clip_fraction", "eos_rate", "accuracy", "groups_without_spread")

check = CheckList()


@check(
    causes="a mean over the wrong thing, a sum over micro-batches that is not divided, or two figures exchanged.",
    within=f"figures at most {CLOSE:g} of their size apart",
)
def metrics_are_what_they_are_called(component: Component, seed: int) -> str:
    """reward, kl, length, entropy, loss, accuracy, margin, ... are the figures of docs/conformance.md, of the whole batch."""
    once: dict[str, Any] = {"epochs": 1, "minibatches": 1}
    largest = 0.0
    for chosen in ({**once, "missing_eos": "keep"}, {"epochs": 2, "minibatches": 2}, once | UNDISCOUNTED):
        chosen |= {"updates": UPDATES, "lr_schedule": "linear", "max_grad_norm": 0.0, "micro_batch_size": 5}
        trial = Trial(component, seed, **chosen)
        for number in range(2):
            batch = varied_batch(trial)
            if number and isinstance(batch, LabelledBatch):
                favour(trial.policy, batch.sequences)
            update = traced(trial, batch)
            for name in SHARES:
                if not 0 <= (share := update.report.metrics.get(name, 0.0)) <= 1:
                    raise PropertyBroken(f"{name!r} is {share:.5g}, and a share lies between 0 and 1.")
            for name, accepted in wanted(trial, update, number):
                found = update.report.metrics.get(name)
                if found is None:
                    continue
                off = min(abs(found - one) / max(abs(one), 1.0) for one in accepted)
                if off <= CLOSE:
                    largest = max(largest, off)
                    continue
                raise PropertyBroken(
                    f"{name!r} is {found:.5g} in update {number + 1}, and should be {' or '.join(f'{one:.5g}' for one in accepted)}."
                )
    return f"at most {largest:.1g} of a figure's size, of at most {CLOSE:g}"


def wanted(trial: Trial, update: Update, number: int) -> Iterator[tuple[str, tuple[float, ...]]]:
    """What the figures of an update should be, by name, where they are known."""
    batch, steps, metrics = update.batch, update.steps, update.report.metrics
    mask = sequences_of(batch).response_mask.bool()
    rate = share_of_rate(number, updates=UPDATES, schedule="linear", warmup=0)
    yield "learning_rate", (trial.config.learning_rate * rate,)
    # Of all responses, or of those that are learnt from.
    learnt = torch.cat([step.rows for step in steps]).unique() if steps else torch.arange(len(mask))
    yield "tokens", (float(mask.sum()), float(mask[learnt].sum()))
    for name, role in (("gradient_norm", POLICY), ("policy_gradient_norm", POLICY), ("value_gradient_norm", "value")):
        norms = [float(part.gradient.norm()) for step in steps for part in step.roles if part.role == role]
        if norms:
            yield name, (sum(norms) / len(norms),)
    if (losses := [stated_value(trial, update, step) for step in steps]) and None not in losses:
        mean = sum(loss for loss in losses if loss is not None) / len(losses)
        yield "loss", (mean,)
        if "policy_loss" in metrics:
            yield "value_loss", (mean - metrics["policy_loss"],)
    if len(steps) == 1:
        # Nothing has moved yet.
        yield from ((name, (0.0,)) for name in ("clip_fraction", "value_clip_fraction", "approx_kl"))
    if isinstance(batch, ScoredRollout):
        yield from _of_rollouts(trial, update, batch, learnt, first=number == 0)
    elif isinstance(batch, PreferenceBatch | LabelledBatch):
        yield from _of_preferences(trial, update, batch)


def _of_rollouts(
    trial: Trial, update: Update, batch: ScoredRollout, learnt: Tensor, *, first: bool
) -> Iterator[tuple[str, tuple[float, ...]]]:
    config, shown, metrics = trial.config, sequences_of(batch), update.report.metrics
    table, mask = update.start[POLICY].double(), shown.response_mask.bool()
    mine, theirs = (
        logprobs(trial.policy, t, shown, config.temperature) for t in (table, trial.policy._table(REFERENCE).double())
    )
    own = own_rows(config, len(mask))
    own = own if bool(own.any()) else ~own  # where it never draws itself, of those who do
    kl = float((mine - theirs).sum(1)[own].mean())
    scores = batch.scores.double().reshape(-1, config.samples_per_prompt)
    yield "reward", (float(batch.scores.double()[own].mean()),)
    if batch.rollout.off_policy:
        apart = torch.where(mask, mine - batch.rollout.logprobs.double(), 0.0)
        yield "sampler_gap", (float(apart.abs().sum() / mask.sum()),)
        yield "sampler_kl", (float((torch.expm1(apart) - apart).sum(1).mean()),)
    if config.scalar_roles and all(getattr(config, name, value) == value for name, value in UNDISCOUNTED.items()):
        known = update.start[config.scalar_roles[0]].double()
        guess = values(trial.policy, known, table, shown, shared=trial.policy.shares_trunk)[:, :-1][mask]
        returns = batch.scores.double()[:, None].expand_as(mine)[mask]
        yield "explained_variance", (float(1 - (returns - guess).var(correction=0) / returns.var(correction=0)),)
    yield "best_reward", (float(scores.amax(1).mean()),)
    yield "kl", (kl,)
    if getattr(config, "missing_eos", "keep") == "keep":
        # Before the first update no controller has moved the coefficient: a figure that is reported need not be believed.
        price = getattr(config, "kl_coef", None) if first else metrics.get("kl_coef")
        if price is not None:
            yield "objective", (float(scores.mean()) - price * kl,)
        if "ties" in metrics and "pairs" in metrics:
            alike = float((scores.amax(1) == scores.amin(1)).sum())
            yield "ties", (max(len(scores) - metrics["pairs"], alike),)
    finished = batch.rollout.samples.finished.double()
    yield "length", (float(mask.sum(1).double().mean()), float(mask[learnt].sum(1).double().mean()))
    yield "eos_rate", (float(finished.mean()), float(finished[learnt].mean()))
    prompts, states = trial.policy.states(shown)
    chances = torch.log_softmax(table / config.temperature, -1)
    spread = -(chances.exp() * chances).sum(-1)[prompts[:, None], states[:, :-1]]
    yield "entropy", (float(spread[mask].mean()),)


def _of_preferences(
    trial: Trial, update: Update, batch: PreferenceBatch | LabelledBatch
) -> Iterator[tuple[str, tuple[float, ...]]]:
    config, shown, metrics = trial.config, sequences_of(batch), update.report.metrics
    mine, theirs = (
        logprobs(trial.policy, t, shown, 1.0).sum(1)
        for t in (update.start[POLICY].double(), trial.policy._table(REFERENCE).double())
    )
    good = batch.good.bool() if isinstance(batch, LabelledBatch) else torch.arange(len(mine)) < len(mine) // 2
    for side, of in (("chosen", good), ("rejected", ~good)):
        yield f"logprob_{side}", (float(mine[of].mean()),)
        yield f"log_ratio_{side}", (float((mine - theirs)[of].mean()),)
    known = config.implicit_reward()
    worth = mine - theirs if known.uses_reference else mine
    worth = worth / shown.response_mask.sum(1) if known.per_token else worth
    if known.beta is not None:
        for side, of in (("chosen", good), ("rejected", ~good)):
            yield f"reward_{side}", (float(known.beta * worth[of].mean()),)
        yield "margin", (float(known.beta * (worth[good].mean() - worth[~good].mean())),)
    elif "reward_chosen" in metrics and "reward_rejected" in metrics:
        yield "margin", (metrics["reward_chosen"] - metrics["reward_rejected"],)
    if "z0" in metrics:
        yield "accuracy", (float(((worth > metrics["z0"]) == good).double().mean()),)
    if isinstance(config, PreferenceConfig):
        yield "accuracy", (float((worth[good] > worth[~good]).double().mean()),)
