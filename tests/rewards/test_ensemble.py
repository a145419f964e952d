"""Several reward models together: what they say against closed forms, the mean of their weights, and fits that go on after a stop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_rewards.config import LearnedConfig
from alignbench_rewards.ensemble import averaged, together
from alignbench_rewards.learned import LearnedReward
from torch import Tensor

from alignbench import Samples, UserError
from alignbench.app.compose import load_config
from alignbench.pipeline.memory import workload
from tests import tiny
from tests.rewards.test_learned import LovesH, baseline, build, fit, loving_h

MEMBERS = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 6.0]])


def test_what_several_members_say_is_the_papers() -> None:
    def said(**settings: Any) -> list[float]:
        return together(MEMBERS, LearnedConfig(members=3, **settings), 1.0).tolist()

    assert said() == pytest.approx([2.0, 0.0, 2.0])
    assert said(ensemble="worst") == [1.0, 0.0, -1.0]
    variances = [2 / 3, 0.0, (9 + 1 + 16) / 3]
    assert said(ensemble="uncertainty", uncertainty=0.5) == pytest.approx(
        [mean - 0.5 * variance for mean, variance in zip([2.0, 0.0, 2.0], variances, strict=True)]
    )
    assert said(ensemble="uncertainty", uncertainty=0.0) == pytest.approx(said())


def test_the_mean_of_weights_is_gathered_one_after_the_other() -> None:
    members = [[torch.full((2,), float(n)), torch.tensor(10.0 * n)] for n in (1, 2, 6)]
    mean: list[Tensor] = []
    for member in members:
        mean = averaged(mean, member, 1 / 3)
    assert [weights.tolist() for weights in mean] == [[pytest.approx(3.0)] * 2, pytest.approx(30.0)]


def members_of(reward: LearnedReward, samples: Samples) -> Tensor:
    with torch.no_grad():
        return reward._members(samples.sequences)


@pytest.mark.parametrize("ensemble", ["mean", "worst", "uncertainty"])
@pytest.mark.parametrize("make", [tiny.scratch, tiny.adapters])
def test_each_member_learns_and_together_they_are_normalised(
    ensemble: str, make: Callable[[], tiny.HFPolicy], tmp_path: Path
) -> None:
    policy = make()
    samples = baseline(policy)
    settings = {"members": 3, "ensemble": ensemble, "uncertainty": 0.5, "updates": 20}
    reward = build(policy, **settings)
    assert policy.scalars() == ("reward", "reward_2", "reward_3")
    report, lines = fit(reward, loving_h(0, 60), loving_h(1, 30), samples)
    assert [(update, updates) for update, updates, _ in lines] == [(i, 60) for i in range(1, 61)]
    assert report.metrics["held_out_accuracy"] > 0.85
    assert report.metrics["disagreement"] > 0

    scores, members = reward.score(samples), members_of(reward, samples)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std(correction=0)) == pytest.approx(1, rel=1e-3)
    assert float((members[:, 0] - members[:, 1]).abs().max()) > 0.01, "each has an order of its own"
    # All are shifted and scaled alike beyond their own normalisation: in its unit, that of each by itself, the paper's form holds.
    alone = (members - members.mean(0)) / members.std(0, correction=0)
    combined = {
        "mean": alone.mean(1),
        "worst": alone.amin(1),
        "uncertainty": alone.mean(1) - 0.5 * alone.var(1, correction=0),
    }[ensemble]
    torch.testing.assert_close(scores, (combined - combined.mean()) / combined.std(correction=0), rtol=0, atol=2e-3)

    reward.save(tmp_path)
    other = build(make(), **settings)
    other.load(tmp_path)
    torch.testing.assert_close(other.score(samples), scores, rtol=0, atol=1e-5)


def test_the_first_member_is_what_it_is_alone() -> None:
    samples = baseline(tiny.scratch())
    alone, first = (build(tiny.scratch(), updates=6, normalise=False, members=members) for members in (1, 2))
    for reward in (alone, first):
        fit(reward, loving_h(0, 30), [], samples)
    assert torch.equal(alone.score(samples), members_of(first, samples)[:, 0])


def test_warm_is_one_model_of_the_mean_of_their_weights() -> None:
    """Beside it, the same members kept apart: parameter for parameter their mean."""
    samples = baseline(tiny.scratch())
    one, policy = build(tiny.scratch(), updates=8, normalise=False, members=3, ensemble="weights"), tiny.scratch()
    apart = build(policy, updates=8, normalise=False, members=3)
    assert one._policy.scalars() == ("reward",)
    for reward in (one, apart):
        fit(reward, loving_h(0, 40), [], samples)
    for mine, *theirs in zip(*(role.parameters() for role in (*one._roles, *apart._roles)), strict=True):
        torch.testing.assert_close(mine, torch.stack(theirs).mean(0))
    assert not torch.allclose(one.score(samples), members_of(apart, samples)[:, 0], atol=1e-3)


@pytest.mark.parametrize("ensemble", ["mean", "weights"])
@pytest.mark.parametrize("at", [2, 4, 6, 9])
def test_a_fit_that_was_stopped_goes_on_in_any_member(ensemble: str, at: int) -> None:
    samples, rankings = baseline(tiny.scratch()), loving_h(0, 30)
    settings = {"updates": 4, "members": 3, "ensemble": ensemble}
    whole, states = build(tiny.scratch(), **settings), {}

    def keep(update: int, updates: int, metrics: Any, state: Callable[[], Any]) -> None:
        states[update] = copy.deepcopy(state())  # a checkpoint is written at once

    whole.fit(rankings, [], samples, annotator=LovesH(), progress=keep)
    again, seen = build(tiny.scratch(), **settings), []
    again.fit(
        rankings, [], samples, annotator=LovesH(), state=states[at], progress=lambda update, *rest: seen.append(update)
    )
    assert seen == list(range(at + 1, 13))
    assert torch.equal(again.score(samples), whole.score(samples))


def test_its_memory_is_planned() -> None:
    def roles(*overrides: str) -> tuple[int, int]:
        (work,) = (work for work in workload(load_config(["algo=rloo", *overrides])) if work.stage == "reward")
        return len(work.roles), len(work.optimized)

    assert roles() == (3, 1)
    assert roles("reward.members=4") == (6, 1)
    assert roles("reward.members=4", "reward.ensemble=weights") == (3, 1)


def test_an_unknown_ensemble_lists_the_choices() -> None:
    with pytest.raises(UserError, match=r"reward.ensemble.*Did you mean 'worst'"):
        LearnedConfig(ensemble="worse")
