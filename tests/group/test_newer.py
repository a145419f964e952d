"""REINFORCE++, MaxRL and DAPO's groups against what their papers say, every outcome written down."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from alignbench_group.config import (
    DAPOConfig,
    GroupConfig,
    GSPOConfig,
    MaxRLConfig,
    ReinforcePPBaselineConfig,
    ReinforcePPConfig,
)
from alignbench_group.groups import Compared, GroupOptimizer
from alignbench_group.grpo import DAPO
from alignbench_group.maxrl import MaxRL, over_rate
from alignbench_group.reinforce_pp import ReinforcePP, ReinforcePPBaseline
from alignbench_group.sequence import GSPO
from torch import Tensor

from alignbench import ExactProblem, Seeds, UserError
from tests import tiny
from tests.group.test_optimum import KEEP, Table, problem

# MaxRL


def log_success(p: Tensor, terms: int) -> Tensor:
    """log p = -sum_j (1 - p)^j / j, cut off."""
    return -sum(((1 - p) ** j / j for j in range(1, terms + 1)), torch.zeros_like(p))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_maxrl_follows_the_log_probability_of_success_cut_off_after_k_minus_1_terms(k: int) -> None:
    """The mean of the estimator over all k-tuples of draws. Of two responses it is REINFORCE with the other as the baseline."""
    logits = torch.tensor([0.3, -0.5, 1.0, 0.1], dtype=torch.float64, requires_grad=True)
    success = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    p = torch.softmax(logits, 0)
    draws = torch.cartesian_prod(*[torch.arange(4)] * k)
    weight = p.detach()[draws].prod(1)
    seen = torch.nn.functional.one_hot(draws, 4).double() - p.detach()
    found = (weight[:, None, None] * over_rate(success[draws])[:, :, None] * seen).sum((0, 1)) / k
    (expected,) = torch.autograd.grad(log_success((p * success).sum(), k - 1), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("kl_coef", "k"), [(0.2, 2), (0.5, 3), (2.0, 16)])
def test_maxrl_rests_where_its_objective_is_highest(kl_coef: float, k: int) -> None:
    world = problem()
    config = MaxRLConfig(kl_coef=kl_coef, samples_per_prompt=k, batch_size=16 * k, missing_eos="keep")
    found = MaxRL.optimum(config, world)
    assert found is not None
    success = (world.rewards > config.success_above).double()

    def objective(logits: Tensor) -> Tensor:
        policy = torch.softmax(logits, 1)
        kl = (policy * (policy.log() - world.reference.log())).sum(1)
        return (log_success((policy * success).sum(1), k - 1) - kl_coef * kl).sum()

    for where, still in ((found, True), (world.reference, False)):
        logits = where.log().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(logits), logits)
        assert (float(gradient.abs().max()) < 1e-9) == still


def test_maxrl_where_nothing_or_everything_succeeds() -> None:
    world = problem()
    for threshold in (99.0, -99.0):
        config = MaxRLConfig(kl_coef=0.5, success_above=threshold, missing_eos="keep")
        torch.testing.assert_close(MaxRL.optimum(config, world), world.reference)
    assert over_rate(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


# REINFORCE++


def compared(kind: type[GroupOptimizer], config: GroupConfig, scores: Tensor, ratios: Tensor, mask: Tensor) -> Compared:
    algorithm = kind.__new__(kind)
    algorithm._config = config
    return algorithm._compared(scores, ratios, mask)


@pytest.mark.parametrize("kind", [ReinforcePP, ReinforcePPBaseline])
def test_a_token_is_paid_for_what_follows_it_beside_all_tokens_of_the_batch(kind: type[ReinforcePP]) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths, k, beta = [3, 1, 2, 3], 2, 0.4
    mask = torch.arange(3)[None] < torch.tensor(lengths)[:, None]
    ratios = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    scores = torch.randn(4, generator=generator, dtype=torch.float64)
    schema = ReinforcePPConfig if kind is ReinforcePP else ReinforcePPBaselineConfig
    options = {} if kind is ReinforcePP else {"kl_in": "reward"}
    found = compared(kind, schema(kl_coef=beta, samples_per_prompt=k, **options), scores, ratios, mask).advantages
    returns = {}
    for i, length in enumerate(lengths):
        group = scores[i - i % k : i - i % k + k]
        worth = float(scores[i] - group.mean()) if kind is ReinforcePPBaseline else float(scores[i])
        returns |= {(i, t): worth - beta * float(ratios[i, t:length].sum()) for t in range(length)}
    values = torch.tensor(list(returns.values())).double()
    for (i, t), value in returns.items():
        assert float(found[i, t]) == pytest.approx(float((value - values.mean()) / values.std(correction=0)), rel=1e-6)
    assert bool((found[~mask] == 0).all())


def test_a_batch_whose_returns_are_all_equal_says_nothing() -> None:
    """A mean that is off by rounding must not become an advantage."""
    mask = torch.ones(7, 3, dtype=torch.bool)
    config = ReinforcePPConfig(kl_coef=0.0, batch_size=7)
    found = compared(ReinforcePP, config, torch.full((7,), 0.1), torch.zeros(7, 3), mask)
    assert bool((found.advantages == 0).all())


@pytest.mark.parametrize("score", [0.1, 100.1, 1000.1])
def test_groups_without_spread_say_nothing_however_high_their_scores(score: float) -> None:
    mask = torch.ones(16, 3, dtype=torch.bool)
    config = ReinforcePPBaselineConfig(samples_per_prompt=8, batch_size=16)
    scores = torch.tensor([score, 3.3 * score]).repeat_interleave(8)
    found = compared(ReinforcePPBaseline, config, scores, torch.zeros(16, 3), mask)
    assert bool((found.advantages == 0).all())


def expected_gradient(world: ExactProblem, row: int, policy: Tensor, kl_coef: float, share: float) -> float:
    """The largest entry of the policy gradient over all completions, each by its probability: `share` of a response's score less what
    its tokens pay from each on. A baseline that no response moves adds nothing to it."""
    table, reference = Table(world.completions, policy), Table(world.completions, world.reference[row])
    new, ref = table.logprobs(), reference.logprobs().detach()
    paid = (new.detach() - ref).masked_fill(~table.mask, 0.0).flip(1).cumsum(1).flip(1)
    returns = share * world.rewards[row][:, None] - kl_coef * paid
    total = (policy[:, None] * returns * new).sum()
    (gradient,) = torch.autograd.grad(total, table.logits)
    return float(gradient.abs().max())


def test_reinforce_pp_rests_at_its_optimum() -> None:
    """With a mean that holds the response itself, at (k - 1) / k of the scores."""
    world = problem()
    plain = ReinforcePP.optimum(ReinforcePPConfig(**KEEP), world)
    config = ReinforcePPBaselineConfig(**KEEP, samples_per_prompt=4, kl_in="reward")
    based = ReinforcePPBaseline.optimum(config, world)
    assert plain is not None and based is not None
    for row in range(2):
        for policy, share in ((plain, 1.0), (based, 0.75)):
            assert expected_gradient(world, row, policy[row], 0.5, share) < 1e-9
        assert expected_gradient(world, row, plain[row], 0.5, 0.75) > 1e-3
    assert ReinforcePPBaseline.optimum(dataclasses.replace(config, kl_in="loss"), world) is None


# DAPO and GSPO


def test_dapo_states_no_fixed_point_where_groups_are_left_out_with_their_kl() -> None:
    """A group without spread is likelier the more its others score alike, so that what a response pays for its KL depends on it."""
    loss = DAPOConfig(**KEEP, samples_per_prompt=4, kl_in="loss", scale_by_std=False)
    assert DAPO.optimum(loss, problem()) is None
    for changes in ({"leave_out_flat": False}, {"kl_in": "reward"}):
        assert DAPO.optimum(dataclasses.replace(loss, **changes), problem()) is not None


def test_dapo_learns_from_groups_with_spread_alone() -> None:
    """A group whose scores are all equal is as if it were not there, its KL included."""
    outcomes = []
    for kept in (9, 18):
        policy = tiny.scratch()
        policy.freeze_reference()
        tiny.move(policy, scale=0.03)
        batch = tiny.scored(policy, n=3, seed=0)
        scores = batch.scores.clone()
        scores[9:] = 0.1
        rows = torch.arange(kept)
        samples = batch.rollout.samples.select(rows)
        width = samples.sequences.response_ids.shape[1]
        rollout = dataclasses.replace(batch.rollout, samples=samples, logprobs=batch.rollout.logprobs[rows, :width])
        config = DAPOConfig(updates=1, batch_size=kept, samples_per_prompt=3, learning_rate=1e-2, epochs=2)
        report = DAPO(config, policy=policy, updates=1, seeds=Seeds(0)).update(
            dataclasses.replace(batch, rollout=rollout, scores=scores[rows])
        )
        outcomes.append([p.detach().clone() for p in policy.trainable()])
        assert report.metrics["groups_without_spread"] == (0 if kept == 9 else 0.5)
    assert max(float((a - b).abs().max()) for a, b in zip(*outcomes, strict=True)) < 1e-4
    assert (
        max(float((a - b.detach()).abs().max()) for a, b in zip(outcomes[0], tiny.scratch().trainable(), strict=True))
        > 5e-3
    )


def test_the_clips_of_gspo_are_a_responses() -> None:
    """Three epochs of steps far beyond 3e-4: nearly every response is clipped, and a few of those that moved the other way are not."""
    policy = tiny.scratch()
    policy.freeze_reference()
    config = GSPOConfig(updates=1, batch_size=18, samples_per_prompt=3, learning_rate=1e-2, epochs=3)
    report = GSPO(config, policy=policy, updates=1, seeds=Seeds(0)).update(tiny.scored(policy, n=3, seed=0))
    assert 0.3 < report.metrics["clip_fraction"] <= 2 / 3, "of three steps the first is at a ratio of 1"


@pytest.mark.parametrize(
    ("schema", "changes", "message"),
    [
        (ReinforcePPBaselineConfig, {"kl_in": "rewards"}, "Did you mean 'reward'"),
        (ReinforcePPBaselineConfig, {"samples_per_prompt": 1}, "must be 2 to"),
        (DAPOConfig, {"overlong_buffer": 0.0}, "overlong_buffer"),
        (DAPOConfig, {"clip_ratio_high": 0.0}, "clip_ratio_high"),
        (GSPOConfig, {"kl_estimator": "k1"}, "expected gradient is 0"),
    ],
)
def test_impossible_settings_are_refused(schema: type[GroupConfig], changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        schema(**changes)
