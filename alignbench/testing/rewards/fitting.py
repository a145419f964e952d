"""Checks of how a reward source is fitted: step by step against a float64 fit by the loss that its author states."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.contracts import FittableRewardSource
from alignbench.contracts.known import Known
from alignbench.plugins import Component
from alignbench.records import FitReport, Ranking, Samples
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.known import stated, with_settings
from alignbench.testing.rewards import base as reward
from alignbench.testing.schedule import share_of_rate
from alignbench.testing.tabular import TabularPolicy
from alignbench.testing.world import BradleyTerry, World, WorldData, ratings

RANKED, WITHOUT_PAIRS, UPDATES = 22, 2, 6
AWAY = 0.01
"""Of the largest movement of a weight: how far a weight may be from where float64 takes it."""

check = CheckList()


@dataclass(frozen=True)
class Attempt:
    """One fit of a few steps, and all that it was made from."""

    world: World
    policy: TabularPolicy
    source: FittableRewardSource
    rankings: list[Ranking]
    baseline: Samples


def attempt(component: Component, seed: int, **changes: Any) -> Attempt:
    """Built, and not fitted yet. Raises NotApplicable where it is not fitted, or not by the policy's scalar role "reward"."""
    world = World(seed, prompts=3)
    policy = world.policy(reward_role=False)
    config: Any = component.config()
    if not component.load().needs_rankings(config):
        raise NotApplicable("it is not fitted")
    known = {field.name for field in dataclasses.fields(config)}
    config = dataclasses.replace(config, **{name: value for name, value in changes.items() if name in known})
    source = component.load()(config, policy=policy, data=WorldData(world), seeds=Seeds(seed).child("reward"))
    return Attempt(world, policy, source, rankings(world), reward.samples(world, policy, 64, "baseline"))


def rankings(world: World) -> list[Ranking]:
    """By Bradley-Terry; of a third the middle two are tied, of some the last two, and `WITHOUT_PAIRS` say nothing. A fifth has no
    ratings."""
    annotator = BradleyTerry(world, seeds=world.seeds)
    found = world.rankings(4 * RANKED, 4, world.seeds.torch("few rankings"), annotator)
    found = [ranking for ranking in found if len(set(ranking.responses)) > 2][:RANKED]
    told = [_ranked(r, [_tied(i % 4, rank) for rank in r.ranks], rated=i % 5 < 4) for i, r in enumerate(found)]
    return [*told, *(_ranked(r, [0] * len(r.ranks), rated=True) for r in found[:WITHOUT_PAIRS])]


def _ranked(ranking: Ranking, ranks: Sequence[int], *, rated: bool) -> Ranking:
    return dataclasses.replace(ranking, ranks=tuple(ranks), scores=ratings(ranks) if rated else ())


def _tied(kind: int, rank: int) -> int:
    return {1: (0, 1, 1, 3), 2: (0, 1, 2, 2), 3: (0, 0, 2, 2)}.get(kind, (0, 1, 2, 3))[rank]


def fit(
    made: Attempt,
    *,
    given: Sequence[Ranking] | None = None,
    held_out: Sequence[Ranking] | None = None,
    progress: Callable[..., None] = lambda *line: None,
    state: Mapping[str, Any] | None = None,
) -> FitReport:
    return made.source.fit(
        made.rankings if given is None else given,
        made.rankings[:5] if held_out is None else held_out,
        made.baseline,
        annotator=BradleyTerry(made.world, seeds=made.world.seeds),
        progress=progress,
        state=state,
    )


def scores(made: Attempt) -> Tensor:
    return made.source.score(reward.samples(made.world, made.policy, 48, "scored"))


def _close(one: Tensor, other: Tensor, what: str) -> None:
    scale = max(float(one.abs().max()), 1e-3)
    if not (gap := float((one - other).abs().max())) <= 1e-4 * scale:
        raise PropertyBroken(f"{what} moved a score by {gap:.2g} (the largest is {scale:.2g}).")


SMALL = {"updates": UPDATES, "batch_size": 6, "micro_batch_size": 4, "learning_rate": 0.1, "normalise": False}


# Against float64


def loss_and_gradient(one: Known, config: Any, made: Attempt, table: Tensor) -> tuple[float, Tensor]:
    """Of all rankings that say something, at a role that stands at `table`."""
    assert one.loss is not None
    told = made.rankings[:RANKED]
    asked = [ranking.prompt for ranking in told for _ in ranking.responses]
    texts, ended = [t for r in told for t in r.responses], [e for r in told for e in r.finished]
    sequences = made.policy.encode(asked, texts, finished=ended).sequences
    rows, states = made.policy.states(sequences)
    last = states.gather(1, sequences.response_mask.sum(1, keepdim=True)).squeeze(1)
    table = table.clone().requires_grad_(True)
    loss = one.loss(config, table[rows, last], told)
    (gradient,) = torch.autograd.grad(loss, table)
    return float(loss.detach()), gradient


@check(
    causes="a pair weighed wrongly, a tie taken for a pair, a mean over a micro-batch, a schedule or a clip left out."
)
def fitting_follows_its_loss(component: Component, seed: int) -> None:
    """Step by step the weights go where AdamW in float64 takes them by the stated loss: with ties, small micro-batches, every
    schedule, warm-up, weight decay, and a limit on the gradient that acts."""
    for one in stated(component, "loss"):
        tuned = with_settings(component, one)
        for schedule, warmup in (("linear", 2), ("cosine", 0), ("constant", 1)):
            _followed(tuned, one, seed, schedule, warmup)


def _followed(component: Component, one: Known, seed: int, schedule: str, warmup: int) -> None:
    settings: dict[str, Any] = {
        **SMALL,
        "batch_size": RANKED,
        "micro_batch_size": 5,
        "adam_eps": 1e-3,
        "weight_decay": 0.3,
    }
    settings |= {"lr_schedule": schedule, "warmup_updates": warmup, "max_grad_norm": 0.0}
    made = attempt(component, seed, **settings)
    if "reward" not in made.policy.scalars():
        raise NotApplicable("it has no scalar role 'reward'")
    table = made.policy.role("reward").table.detach().double().clone()
    config: Any = dataclasses.replace(component.config(), **settings)
    limit = 0.7 * float(loss_and_gradient(one, config, made, table)[1].norm())
    config = dataclasses.replace(config, max_grad_norm=limit)
    made = attempt(component, seed, **settings | {"max_grad_norm": limit})
    lines: list[Mapping[str, float]] = []
    fit(made, progress=lambda update, updates, metrics, state=None: lines.append(metrics))
    parameter = torch.nn.Parameter(table.clone())
    adamw = torch.optim.AdamW([parameter], lr=1.0, eps=config.adam_eps, weight_decay=config.weight_decay)
    for update in range(config.updates):
        loss, gradient = loss_and_gradient(one, config, made, parameter.detach())
        norm = float(gradient.norm())
        told = lines[update].get("loss", loss)
        if not abs(told - loss) <= 1e-3 * max(abs(loss), 0.1):
            raise PropertyBroken(f"The loss of update {update + 1} is reported as {told:.5g}: it is {loss:.5g}.")
        parameter.grad = gradient * min(1.0, limit / norm)
        share = share_of_rate(update, updates=config.updates, schedule=schedule, warmup=warmup)
        adamw.param_groups[0]["lr"] = config.learning_rate * share
        adamw.step()
    reached = made.policy.role("reward").table.detach().double()
    moved = float((parameter.detach() - table).abs().max())
    gap = float((reached - parameter.detach()).abs().max())
    if not gap <= AWAY * moved:
        raise PropertyBroken(
            f"After {config.updates} updates of all rankings (lr_schedule={schedule}, warmup_updates={warmup}) a weight is {gap:.2g} from "
            f"where the stated loss takes it, {gap / moved:.2g} of the largest movement."
        )


@check(
    causes="a figure of other rankings, a tie of scores that counts as right, or one of scores that are normalised already."
)
def fitting_figures_are_as_stated(component: Component, seed: int) -> None:
    """The figures that its author states of held-out rankings are those of its report."""
    for one in stated(component, "figures"):
        made = attempt(with_settings(component, one), seed, **SMALL)
        held_out = made.rankings[3:14]
        report = fit(made, held_out=[*held_out, *made.rankings[RANKED:]])
        asked = [ranking.prompt for ranking in held_out for _ in ranking.responses]
        texts, ended = [t for r in held_out for t in r.responses], [e for r in held_out for e in r.finished]
        raw = made.source.score(made.policy.encode(asked, texts, finished=ended))
        assert one.figures is not None
        for name, value in one.figures(raw.tolist(), held_out).items():
            if not math.isclose(report.metrics.get(name, math.nan), value, rel_tol=1e-4, abs_tol=1e-5):
                raise PropertyBroken(f"{name} is {report.metrics.get(name)}, where its scores say {value:.6g}.")


# What it learns from, and how often


@check(
    causes="batches drawn with replacement, the same rows each time, or rows that are left over at the end of a pass."
)
def every_ranking_is_learnt_from_once_a_pass(component: Component, seed: int) -> None:
    """With `passes=2` each ranking that says something is read twice, and in another order the second time."""
    tuned = reward.fittable(component, seed)
    if "passes" not in {field.name for field in dataclasses.fields(tuned.config)}:
        raise NotApplicable("it has no option `passes`")
    made = attempt(tuned, seed, **SMALL | {"updates": 0, "passes": 2.0, "batch_size": 2, "micro_batch_size": 2})
    read: list[tuple[str, str]] = []
    batches: list[int] = []
    encode = made.policy.encode

    def watched(prompts: Any, responses: Any, **options: Any) -> Samples:
        if len(batches) < RANKED:
            read.extend((p.id, text) for p, text in zip(prompts, responses, strict=True))
        return encode(prompts, responses, **options)

    made.policy.encode = watched  # type: ignore[method-assign]
    fit(made, progress=lambda update, updates, metrics, state=None: batches.append(updates))
    if not read:
        raise NotApplicable("it does not read rankings by the policy")
    if len(batches) != RANKED:
        raise PropertyBroken(
            f"Two passes over {RANKED} rankings, 2 at a time, are {RANKED} updates, not {len(batches)}."
        )
    told = [(r.prompt.id, text) for r in made.rankings[:RANKED] for text in r.responses]
    counts = Counter(told)
    if odd := [key for key in counts | Counter(read) if Counter(read)[key] != 2 * counts[key]]:
        raise PropertyBroken(
            f"{odd[0][1]!r} was read {Counter(read)[odd[0]]} times in two passes, where rankings show it {counts[odd[0]]} times."
        )
    if read[: len(told)] == read[len(told) :] or read[: len(told)] == told:
        raise PropertyBroken("The order of the rankings is that in which they were given, or the same in each pass.")


@check(
    causes="rankings without a pair that count in a mean, or held-out rankings and the baseline among those that are learnt."
)
def what_says_nothing_teaches_nothing(component: Component, seed: int) -> None:
    """Rankings that are all ties, and other held-out rankings, change no score."""
    tuned = reward.fittable(component, seed)
    made, less, other = (attempt(tuned, seed, **SMALL | {"batch_size": RANKED}) for _ in range(3))
    fit(made)
    fit(less, given=less.rankings[:RANKED])
    fit(other, held_out=other.rankings[8:12])
    _close(scores(made), scores(less), "Rankings without a pair")
    _close(scores(made), scores(other), "Other held-out rankings")


@check(causes="a mean within the micro-batch, or the remainder of a batch left out.")
def micro_batches_fit_alike(component: Component, seed: int) -> None:
    """micro_batch_size makes no difference beyond rounding."""
    tuned = reward.fittable(component, seed)
    if "micro_batch_size" not in {field.name for field in dataclasses.fields(tuned.config)}:
        raise NotApplicable("it has no option `micro_batch_size`")
    made, other = (attempt(tuned, seed, **SMALL | {"adam_eps": 1.0, "micro_batch_size": size}) for size in (6, 4))
    fit(made)
    fit(other)
    _close(scores(made), scores(other), "Smaller micro-batches")


@check(causes="weights, moments, the schedule's place or the order of what is left that is missing from the state.")
def fitting_goes_on_from_its_state(component: Component, seed: int) -> None:
    """Built anew and given the state of an earlier fit, it goes on to the same scores, and counts its updates from there."""
    tuned = reward.fittable(component, seed)
    settings = SMALL | {"lr_schedule": "linear"}
    made, again = attempt(tuned, seed, **settings), attempt(tuned, seed, **settings)
    kept: list[Mapping[str, Any]] = []
    counted: list[tuple[int, int]] = []

    def keep(update: int, updates: int, metrics: Any, state: Callable[[], Mapping[str, Any]] | None = None) -> None:
        if update == UPDATES // 2 and state is not None:
            kept.append(copy.deepcopy(state()))

    fit(made, progress=keep)
    if not kept:
        raise NotApplicable("it gives no state")
    fit(again, progress=lambda update, updates, *line: counted.append((update, updates)), state=kept[0])
    begun, whole = UPDATES // 2, counted[-1][1] if counted else UPDATES
    if counted != [(update, whole) for update in range(begun + 1, whole + 1)]:
        told = ", ".join(str(update) for update, _ in counted[:5])
        raise PropertyBroken(f"After {begun} of {whole} updates it went on with {told or 'none'}.")
    _close(scores(made), scores(again), "Going on from its state")
