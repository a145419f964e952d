"""Checks of a reward source: what a score is, what it must not depend on, and what fitting must give."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignbench.contracts import FittableRewardSource, RewardSource
from alignbench.errors import UserError
from alignbench.functional import ranking_to_pairs
from alignbench.plugins import Component
from alignbench.records import FitReport, Prompt, Samples, Sampling, Verdict
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.known import known, with_settings
from alignbench.testing.tabular import TabularPolicy, disguise
from alignbench.testing.trial import changed_fields, snapshot
from alignbench.testing.world import BradleyTerry, World, WorldData

RANKINGS, HELD_OUT, RESPONSES, BASELINE = 192, 64, 4, 256
ACCURACY = 0.58
"""Of held-out pairs: chance is 0.5, and Bradley-Terry's own noise leaves 0.63 to 0.77 to the true reward."""
SAME = 1e-5
"""Of the largest score, or of 1 where all are smaller: what summing in another order may cost."""
MEAN_OFF, DEVIATION_OFF = 1e-3, 1e-2
UNIT_OFF = 1e-3
"""A value from the score that it starts from, as a share of the largest score or of 1."""
SAME_SCORE = f"a difference of at most {SAME:g} of the largest score"

check = CheckList()


class TellingData(WorldData):
    """The world's truth, and one point less for what was cut off."""

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        known = super().judge(prompt, response, finished=finished)
        return known and dataclasses.replace(known, gold_reward=known.gold_reward - (not finished))


@dataclass(frozen=True)
class Fitted:
    """A reward source ready to score, and what it was made from."""

    world: World
    policy: TabularPolicy
    source: RewardSource
    baseline: Samples
    report: FitReport | None
    progress: tuple[tuple[int, int], ...]


@functools.lru_cache(maxsize=8)
def fitted(component: Component, seed: int) -> Fitted:
    """Built and, where it can be, fitted to rankings by Bradley-Terry on the known reward."""
    return make(component, seed)


def make(component: Component, seed: int, *, alike: bool = False) -> Fitted:
    world = World(seed, alike=alike)
    policy = world.policy(reward_role=False)
    component = ready(component, seed)
    source = build(component, world, policy, seed)
    baseline = samples(world, policy, BASELINE, "baseline")
    if not isinstance(source, FittableRewardSource) or not component.load().needs_rankings(config_of(component)):
        return Fitted(world, policy, source, baseline, None, ())
    annotator = BradleyTerry(world, seeds=world.seeds)
    rng = world.seeds.torch("rankings")
    train, held_out = (world.rankings(count, RESPONSES, rng, annotator) for count in (RANKINGS, HELD_OUT))
    seen: list[tuple[int, int]] = []
    report = source.fit(
        train,
        held_out,
        baseline,
        annotator=annotator,
        progress=lambda update, updates, metrics, state=None: seen.append((update, updates)),
    )
    return Fitted(world, policy, source, baseline, report, tuple(seen))


@functools.lru_cache(maxsize=2)
def variants(component: Component, seed: int) -> tuple[Component, ...]:
    """The component as it stands, where it can be built on the kit's data, and with all settings that its author knows."""
    world, found = World(seed), []
    for one in (None, *known(component)):
        with contextlib.suppress(NotApplicable, UserError):
            tried = component if one is None else with_settings(component, one)
            build(tried, world, world.policy(reward_role=False), seed)
            found.append(tried)
    return tuple(found)


def ready(component: Component, seed: int) -> Component:
    """The first of them, or itself."""
    return (*variants(component, seed), component)[0]


def fittable(component: Component, seed: int) -> Component:
    """The first of them that is fitted."""
    for tried in variants(component, seed):
        if tried.load().needs_rankings(config_of(tried)):
            return tried
    raise NotApplicable("it is not fitted")


def build(component: Component, world: World, policy: TabularPolicy, seed: int) -> RewardSource:
    """The source with its own defaults, at a size and a learning rate that suit a table."""
    try:
        made: RewardSource = component.load()(
            config_of(component), policy=policy, data=TellingData(world), seeds=Seeds(seed).child("reward")
        )
    except UserError as error:
        raise NotApplicable(f"it cannot be built on the kit's data: {error}") from error
    return made


def config_of(component: Component) -> Any:
    known = {field.name for field in dataclasses.fields(component.config)}
    size = {"updates": 60, "batch_size": 32, "micro_batch_size": 32, "learning_rate": 0.1, "lr_schedule": "linear"}
    return dataclasses.replace(component.config(), **{n: v for n, v in size.items() if n in known})


def samples(world: World, policy: TabularPolicy, rows: int, name: str) -> Samples:
    return policy.generate(world.asked(rows), Sampling(), rng=world.seeds.torch(name)).samples


def scored(component: Component, seed: int) -> tuple[Fitted, Samples, Tensor]:
    """Fresh responses with their scores."""
    made = fitted(component, seed)
    fresh = samples(made.world, made.policy, 32, "fresh")
    try:
        return made, fresh, made.source.score(fresh)
    except UserError as error:
        raise NotApplicable(f"it cannot score the kit's data: {error}") from error


def _close(one: Tensor, other: Tensor, what: str) -> float:
    scale = max(float(one.abs().max()), 1.0)
    if one.shape != other.shape or not float((one - other).abs().max()) <= SAME * scale:
        raise PropertyBroken(f"{what} changed a score by {float((one - other).abs().max()):.2g}.")
    return float((one - other).abs().max()) / scale


def _margin(*shares: float) -> str:
    return f"a difference of {max(shares):.2g}, of at most {SAME:g}"


@check(causes="a missing .float(), torch.no_grad() or squeeze, or the wrong device.")
def scores_are_one_number_a_response(component: Component, seed: int) -> None:
    """`score` gives [B] finite float32 numbers on the device of the samples, without gradient."""
    _, fresh, scores = scored(component, seed)
    if scores.shape != (len(fresh),) or scores.dtype != torch.float32:
        raise PropertyBroken(
            f"The scores are {scores.dtype} of shape {tuple(scores.shape)} for {len(fresh)} responses."
        )
    if scores.device != fresh.sequences.response_ids.device or scores.requires_grad:
        raise PropertyBroken(f"The scores are on {scores.device}, with requires_grad={scores.requires_grad}.")
    if not bool(torch.isfinite(scores).all()):
        raise PropertyBroken(f"{int((~torch.isfinite(scores)).sum())} of {len(scores)} scores are not finite.")


@check(causes="dropout, a random choice without a seed, training mode, or an operation in place.", within=SAME_SCORE)
def scoring_changes_nothing(component: Component, seed: int) -> str:
    """Scoring twice gives the same scores, and leaves the samples and the policy as they were."""
    made, fresh, scores = scored(component, seed)
    before, weights = snapshot(fresh), made.policy.logits.detach().clone()
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        share = _close(scores, made.source.score(fresh), "A second look")
    if names := changed_fields(before, fresh):
        raise PropertyBroken(f"Scoring changed {', '.join(names)}.")
    if not torch.equal(weights, made.policy.logits):
        raise PropertyBroken("Scoring changed the policy's weights.")
    return _margin(share)


@check(causes="scores normalised within the batch, or rows sorted and not put back.", within=SAME_SCORE)
def scores_do_not_depend_on_the_batch(component: Component, seed: int) -> str:
    """A response's score is the same in another order, and in a smaller batch."""
    made, fresh, scores = scored(component, seed)
    order = torch.randperm(len(fresh), generator=made.world.seeds.torch("order"))
    mixed = _close(scores[order], made.source.score(fresh.select(order)), "Another order")
    some = order[:5]
    return _margin(mixed, _close(scores[some], made.source.score(fresh.select(some)), "A smaller batch"))


@check(causes="the last column taken for the last token, or a mean over all columns.", within=SAME_SCORE)
def scores_do_not_depend_on_padding(component: Component, seed: int) -> str:
    """More padding on either side, and other tokens at padding, change no score."""
    made, fresh, scores = scored(component, seed)
    rng, shares = made.world.seeds.torch("garbage"), []
    for left, right in ((0, 0), (2, 0), (0, 3)):
        other = dataclasses.replace(fresh, sequences=disguise(fresh.sequences, left=left, right=right, rng=rng))
        what = f"{left} columns of padding at prompts and {right} at responses"
        shares.append(_close(scores, made.source.score(other), what))
    return _margin(*shares)


def _fittable(component: Component, seed: int) -> Fitted:
    return fitted(fittable(component, seed), seed)


def ignores_prompts(made: Fitted) -> bool:
    """Whether every response has the same score under every prompt."""
    count = len(made.world.problem.completions)
    asked = [prompt for prompt in made.world.prompts for _ in range(count)]
    responses = [ids for _ in made.world.prompts for ids in made.world.problem.completions]
    scores = made.source.score(made.policy.samples(asked, responses)).reshape(-1, count)
    return float((scores - scores[0]).abs().max()) <= SAME * max(float(scores.abs().max()), 1.0)


@check(
    causes="the sign of the loss, ranks read the wrong way round (0 is best), or the score of the wrong token.",
    within=f"an accuracy of at least {ACCURACY:g}",
)
def fitting_predicts_rankings(component: Component, seed: int) -> str:
    """Fitted to rankings by Bradley-Terry, it predicts held-out pairs better than chance."""
    made = _fittable(component, seed)
    if ignores_prompts(made):  # it can only learn what is good whatever was asked
        made = make(component, seed, alike=True)
    world = made.world
    annotator = BradleyTerry(world, seeds=world.seeds.child("held out"))
    rankings = world.rankings(256, RESPONSES, world.seeds.torch("held out"), annotator)
    pairs = [pair for ranking in rankings for pair in ranking_to_pairs(ranking)]
    asked, ended = [p.prompt for p in pairs], [p.finished for p in pairs]
    better = made.policy.encode(asked, [p.chosen for p in pairs], finished=[e[0] for e in ended])
    worse = made.policy.encode(asked, [p.rejected for p in pairs], finished=[e[1] for e in ended])
    margin = made.source.score(better) - made.source.score(worse)
    accuracy = float((margin > 0).float().mean() + 0.5 * (margin == 0).float().mean())
    if not accuracy >= ACCURACY:
        raise PropertyBroken(f"Its accuracy on {len(pairs)} held-out pairs is {accuracy:.3f}: at least {ACCURACY}.")
    return f"accuracy {accuracy:.3f} of at least {ACCURACY:g}"


@check(causes="progress called with an update that starts at 0 or only at the end, or a figure that is NaN.")
def fitting_is_reported(component: Component, seed: int) -> None:
    """`progress` is called after each step, counting from 1, and the report's figures are finite."""
    made = _fittable(component, seed)
    numbers = [update for update, _ in made.progress]
    if numbers != list(range(1, len(numbers) + 1)) or not numbers or numbers[-1] != made.progress[-1][1]:
        shown = made.progress[:2] + made.progress[-1:]
        raise PropertyBroken(f"progress(update, updates) was called {len(numbers)} times: {shown} ...")
    assert made.report is not None
    for name, value in made.report.metrics.items():
        if not math.isfinite(value):
            raise PropertyBroken(f"The figure {name!r} is {value}.")


@check(causes="torch's global generator, or the order of a set.")
def fitting_is_repeatable(component: Component, seed: int) -> None:
    """The same seeds give the same scores bit for bit, whatever the global generators hold."""
    _, fresh, scores = scored(component := fittable(component, seed), seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        again = make(component, seed).source.score(fresh)
    if not torch.equal(scores, again):
        raise PropertyBroken(f"A score differs by {float((scores - again).abs().max()):.2g}.")


@check(causes="normalisation or a head that is left out of save, or loaded into a copy.", within=SAME_SCORE)
def saved_and_loaded_it_scores_alike(component: Component, seed: int) -> str:
    """Saved, built anew and loaded, it gives the same scores."""
    made, fresh, scores = scored(component := fittable(component, seed), seed)
    assert isinstance(made.source, FittableRewardSource)
    other = build(ready(component, seed), made.world, made.world.policy(reward_role=False), seed)
    assert isinstance(other, FittableRewardSource)
    with tempfile.TemporaryDirectory() as folder:
        made.source.save(Path(folder))
        other.load(Path(folder))
    return _margin(_close(scores, other.score(fresh), "Saving and loading"))


@check(
    causes="a scale that is read before the shift, the samples of the wrong policy, or a variance in place of its root.",
    within=f"a mean of at most {MEAN_OFF:g}, a standard deviation at most {DEVIATION_OFF:g} from 1",
)
def normalised_on_its_baseline(component: Component, seed: int) -> str:
    """With `normalise`, scores of the baseline have mean 0 and standard deviation 1."""
    config: Any = component.config()
    if not getattr(config, "normalise", False):
        raise NotApplicable("its config has no `normalise`, or does without it")
    made = _fittable(component, seed)
    scores = made.source.score(made.baseline).double()
    mean, deviation = float(scores.mean()), float(scores.std(correction=0))
    if not (abs(mean) <= MEAN_OFF and abs(deviation - 1) <= DEVIATION_OFF):
        raise PropertyBroken(f"They have mean {mean:.3g} and standard deviation {deviation:.3g}.")
    return f"mean {abs(mean):.2g} of at most {MEAN_OFF:g}, deviation off by {abs(deviation - 1):.2g} of at most {DEVIATION_OFF:g}"


@check(
    causes="scores shifted and scaled where they are given, in place of `ScalarRole.rescale`.",
    within=f"a difference of at most {UNIT_OFF:g} of the largest score",
)
def values_start_in_its_unit(component: Component, seed: int) -> str:
    """Where its scores are read off its scalar role "reward", a value network that starts from it is in their unit."""
    made, fresh, scores = scored(component, seed)
    policy = made.policy.clone()
    if "reward" not in policy.scalars():
        raise NotApplicable("it has no scalar role 'reward'")
    sequences = fresh.sequences
    with torch.no_grad():
        values = policy.scalar("value", init_from="reward").values(sequences)
    whole = values.gather(1, sequences.response_mask.sum(1, keepdim=True).long()).squeeze(1)
    # A mixture with other scores is no longer a shift and a scale of what its role says, and has a unit of its own.
    if float(torch.corrcoef(torch.stack([whole, scores]).double())[0, 1]) < 1 - 1e-8:
        raise NotApplicable("its scores are not read after the last token of its role")
    off = float((whole - scores).abs().max()) / max(float(scores.abs().max()), 1.0)
    if not off <= UNIT_OFF:
        raise PropertyBroken(
            f"The values have mean {float(whole.mean()):.3g} and standard deviation {float(whole.std()):.3g}, the scores "
            f"{float(scores.mean()):.3g} and {float(scores.std()):.3g}."
        )
    return f"a difference of {off:.2g}, of at most {UNIT_OFF:g}"
