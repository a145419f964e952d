"""Checks of a whole update against what the algorithm states of itself: its loss, written anew in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from alignbench import functional
from alignbench.contracts import PolicyOptimizer
from alignbench.plugins import Component
from alignbench.records import POLICY, REFERENCE, ScoredRollout, Sequences
from alignbench.records.batches import LabelledBatch, PreferenceBatch
from alignbench.records.terms import LabelTerms, PairTerms, ResponseTerms, RolloutTerms, Terms
from alignbench.seeds import Seeds
from alignbench.testing.algorithms.options import drawn, own_options
from alignbench.testing.algorithms.trace import Step, Update, sequences_of, traced, varied_batch
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.tabular import TabularPolicy, trunk_values
from alignbench.testing.trial import Trial, has, settings

GRADIENT = 2e-3
"""Of the largest gradient of an update: float32 stays far below it."""
CONFIGS = 10
ROWS = 32
# Steps so large that probability ratios leave the clip at both ends.
LARGE: dict[str, Any] = {"learning_rate": 0.3, "adam_eps": 1e-5, "epochs": 3, "minibatches": 2}
_LEFT_ALONE = {"lr_schedule", "warmup_updates", "weight_decay", *LARGE}

check = CheckList()


def configs(component: Component, seed: int, least: int = CONFIGS) -> Iterator[Any]:
    """Settings that show every value of every option, whole batches in one pass and in several."""
    base = settings(component, rows=ROWS if getattr(component.config(), "samples_per_prompt", 1) > 1 else 16, **LARGE)
    names = [name for name in own_options(component) if name not in _LEFT_ALONE]
    names += [name for name in ("minibatches",) if has(component, name)]
    found = drawn(base, names, Seeds(seed).torch("options"), least)
    for place, config in enumerate(found):
        clip = {"max_grad_norm": 0.05 if place % 4 == 3 else 0.0}
        yield dataclasses.replace(config, micro_batch_size=5 if place % 2 else config.batch_size, **clip)


@check(
    causes="an option that is ignored or misread, a mean for a sum, a weight or a sign, a clip at one end alone.",
    within=f"gradients at most {GRADIENT:g} of their size apart",
)
def steps_follow_the_stated_loss(component: Component, seed: int) -> str:
    """Under many settings, first and later steps follow the gradient of `stated_loss`, the loss written anew from the paper."""
    own, base = (
        getattr(made.stated_loss, "__func__", made.stated_loss) for made in (component.load(), PolicyOptimizer)
    )
    if own is base:
        raise NotApplicable("it states no loss")
    most = 0.0
    for place, config in enumerate(configs(component, seed)):
        shared = bool(config.scalar_roles) and place % 3 == 2
        if shared:  # what is clipped is then each loss's own gradient, which the sum does not show
            config = dataclasses.replace(config, max_grad_norm=0.0)
        trial = Trial(component, seed, config=config, shared=shared)
        kls: tuple[float, ...] = ()
        for first in (True, False):
            batch = varied_batch(trial)
            if place % 2 and isinstance(batch, LabelledBatch):
                favour(trial.policy, batch.sequences)
            update = traced(trial, batch)
            last = len(update.steps) - 1
            for number in sorted({0, last} if first else {last // 2}) if update.steps else ():
                most = max(most, _compare(trial, update, number, kls))
            kls = (*kls, _kl(trial, update))
    return f"{most:.2g} of a gradient, of at most {GRADIENT:g}"


def favour(policy: TabularPolicy, sequences: Sequences) -> None:
    """Makes each response as likely as it comes, whatever it answers: the mean log pi / pi_ref of a batch is below 0 elsewhere, and
    then a reference point that is bounded at 0 is never seen."""
    _, states = policy.states(sequences)
    kept = sequences.response_mask.bool()
    with torch.no_grad():
        counts = torch.full_like(policy.logits[0], 1e-3)
        counts.index_put_((states[:, :-1][kept], policy.actions(sequences)[kept]), torch.tensor(1.0), accumulate=True)
        policy.logits.copy_(counts.log())


def _stated(
    trial: Trial, update: Update, step: Step, kls: tuple[float, ...]
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The stated loss at a step, and the weights of each role that it is a function of."""
    leaves = {role.role: role.before.double().requires_grad_() for role in step.roles}
    terms = terms_of(trial, update, step, leaves, kls)
    return trial.component.load().stated_loss(trial.config, terms), leaves


def stated_value(trial: Trial, update: Update, step: Step) -> float | None:
    """The stated loss at a step, where nothing depends on earlier updates."""
    loss, _ = _stated(trial, update, step, ())
    return None if loss is None else float(loss.detach())


def _compare(trial: Trial, update: Update, number: int, kls: tuple[float, ...]) -> float:
    step = update.steps[number]
    loss, leaves = _stated(trial, update, step, kls)
    if loss is None:
        return 0.0
    most = 0.0
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for name, gradient in zip(leaves, found, strict=True):
        wanted = torch.zeros_like(leaves[name]) if gradient is None else gradient
        limit = trial.config.max_grad_norm
        if limit > 0:
            wanted = wanted * min(1.0, limit / (float(wanted.norm()) + 1e-6))
        size = float(wanted.abs().max())
        off = float((step.role(name).gradient.double() - wanted).abs().max()) / max(size, 1e-6)
        if not off <= GRADIENT:
            whose = "" if name == POLICY else f" of the role {name!r}"
            raise PropertyBroken(
                f"Step {number + 1} of {len(update.steps)} with {told(trial)}: the gradient{whose} is off by {off:.2g} of its "
                f"size from that of the stated loss; rounding is below {GRADIENT:g}."
            )
        most = max(most, off)
    return most


def told(trial: Trial) -> str:
    """The settings that are not the defaults, those of the kit left out."""
    default, names = trial.component.config(), own_options(trial.component)
    names = [
        name for name in names if name not in _LEFT_ALONE and getattr(default, name) != getattr(trial.config, name)
    ]
    said = [f"{name}={getattr(trial.config, name)}" for name in names]
    return ", ".join([*said, *["a shared trunk"] * trial.policy.shares_trunk]) or "the defaults"


# What a loss is made of


def terms_of(trial: Trial, update: Update, step: Step, leaves: dict[str, Tensor], kls: tuple[float, ...]) -> Terms:
    """The terms of a step, from the weights in `leaves`; a role that the step leaves alone is as it was before the update."""
    batch, start = update.batch, {name: table.double() for name, table in update.start.items()}
    policy = leaves.get(POLICY, start[POLICY])
    heat = trial.config.temperature if has(trial.component, "temperature") else 1.0
    shown = sequences_of(batch)

    def responses(sequences: Sequences, temperature: float) -> ResponseTerms:
        kept = sequences.response_mask.bool()
        now, before, reference = (
            logprobs(trial.policy, table, sequences, temperature)
            for table in (policy, start[POLICY], trial.policy._table(REFERENCE).double())
        )
        spent = reference_kl(trial.policy, policy, sequences, temperature)
        return ResponseTerms(now, before, reference, kept, spent)

    if isinstance(batch, PreferenceBatch):
        probability = torch.ones(len(batch)) if batch.probability is None else batch.probability
        return PairTerms(responses(batch.chosen, heat), responses(batch.rejected, heat), probability.double())
    if isinstance(batch, LabelledBatch):
        return LabelTerms(
            responses(shown, heat), batch.good.bool(), prompt_numbers(shown), across(trial, shown, start[POLICY])
        )
    if not isinstance(batch, ScoredRollout):
        return responses(shown, heat)
    role = next((name for name in trial.config.scalar_roles if name in leaves), None)
    shared = trial.policy.shares_trunk
    return RolloutTerms(
        responses=responses(shown, heat),
        untempered=responses(shown, 1.0),
        scores=batch.scores.double(),
        finished=batch.rollout.samples.finished,
        rows=step.rows,
        values=None if role is None else values(trial.policy, leaves[role], policy, shown, shared=shared),
        values_before=None if role is None else values(trial.policy, start[role], start[POLICY], shown, shared=shared),
        shared=shared,
        earlier_kl=kls,
        sampled=batch.rollout.logprobs.double() if batch.rollout.off_policy else None,
        max_response_tokens=trial.policy.max_response_tokens,
        parts=batch.parts and dataclasses.replace(batch.parts, values=batch.parts.values.double()),
    )


def logprobs(policy: TabularPolicy, table: Tensor, sequences: Sequences, temperature: float) -> Tensor:
    """[B, R]: of the response tokens, 0 beyond them."""
    prompts, states = policy.states(sequences)
    kept = sequences.response_mask.bool()
    found = torch.log_softmax(table / temperature, -1)
    chosen = found[prompts[:, None], torch.where(kept, states[:, :-1], 0), policy.actions(sequences)]
    return torch.where(kept, chosen, torch.zeros_like(chosen))


def reference_kl(policy: TabularPolicy, table: Tensor, sequences: Sequences, temperature: float) -> Tensor:
    """[B, R]: KL(pi_ref || pi) over all tokens before each response token, 0 beyond them."""
    prompts, states = policy.states(sequences)
    kept = sequences.response_mask.bool()
    own, base = (torch.log_softmax(t / temperature, -1) for t in (table, policy._table(REFERENCE).double()))
    of_state = functional.kl_divergence(base.exp().flatten(0, 1), own.exp().flatten(0, 1)).reshape(own.shape[:2])
    return torch.where(kept, of_state[prompts[:, None], torch.where(kept, states[:, :-1], 0)], 0.0)


def values(policy: TabularPolicy, table: Tensor, logits: Tensor, sequences: Sequences, *, shared: bool) -> Tensor:
    """[B, R + 1]: at the state before each token and at the end, 0 beyond it."""
    prompts, states = policy.states(sequences)
    table = table + trunk_values(logits, table) if shared else table
    inside = torch.arange(states.shape[1])[None] <= sequences.response_mask.sum(1, keepdim=True)
    found = table[prompts[:, None], states]
    return torch.where(inside, found, torch.zeros_like(found))


def prompt_numbers(sequences: Sequences) -> Tensor:
    """[B]: equal prompts have equal numbers, in the order of their tokens, padding first."""
    kept = sequences.prompt_mask.bool().tolist()
    ids = [
        tuple(token if inside else -1 for token, inside in zip(row, mask, strict=True))
        for row, mask in zip(sequences.prompt_ids.tolist(), kept, strict=True)
    ]
    order = sorted(set(ids))
    return torch.tensor([order.index(row) for row in ids])


def across(trial: Trial, sequences: Sequences, table: Tensor) -> Tensor:
    """[B, B]: log pi / pi_ref of each response (column) as an answer to the prompt of each row, before the update."""
    count = len(sequences)
    rows, columns = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
    mixed = Sequences(
        sequences.prompt_ids[rows],
        sequences.prompt_mask[rows],
        sequences.response_ids[columns],
        sequences.response_mask[columns],
    )
    mine, theirs = (
        logprobs(trial.policy, t, mixed, 1.0).sum(1) for t in (table, trial.policy._table(REFERENCE).double())
    )
    return (mine - theirs).reshape(count, count)


def _kl(trial: Trial, update: Update) -> float:
    """Mean log pi / pi_ref of a response before the update, at the config's temperature."""
    heat = trial.config.temperature if has(trial.component, "temperature") else 1.0
    shown = sequences_of(update.batch)
    tables = update.start[POLICY].double(), trial.policy._table(REFERENCE).double()
    mine, theirs = (logprobs(trial.policy, table, shown, heat) for table in tables)
    return float(functional.masked_sum(mine - theirs, shown.response_mask, dim=1).mean())
