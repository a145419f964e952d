"""PPO's functions against float64 loops written from the papers; nothing of the implementation is used in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from alignbench_ppo.ppo import (
    adapt_kl_coef,
    explained_variance,
    gae,
    token_rewards,
    value_loss,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignbench.functional import policy_loss, shape_scores

property_test = settings(deadline=None, derandomize=True, max_examples=60)
GARBAGE = 1e6


@dataclass(frozen=True)
class Rows:
    """Random tensors [B, R] float64 (so that a reference can be met to 1e-12), a right-padded mask with at least one
    token a row, and garbage outside it."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    scores: Tensor
    mask: Tensor

    def wider(self, columns: int, garbage: float) -> Rows:
        """The same rows with more padding, and other garbage in all of it."""

        def widen(values: Tensor) -> Tensor:
            wide = torch.full((len(values), values.shape[1] + columns), garbage, dtype=values.dtype)
            wide[:, : values.shape[1]] = torch.where(self.mask, values, garbage)
            return wide

        mask = torch.zeros(len(self.mask), self.mask.shape[1] + columns, dtype=torch.bool)
        mask[:, : self.mask.shape[1]] = self.mask
        return Rows(*(widen(values) for values in (self.a, self.b, self.c, self.d)), self.scores, mask)


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    width = max(lengths) + draw(st.integers(0, 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]

    def random() -> Tensor:
        values = torch.randn(len(lengths), width, generator=generator, dtype=torch.float64)
        return torch.where(mask, values, GARBAGE * values)

    scores = torch.randn(len(lengths), generator=generator, dtype=torch.float64)
    return Rows(random(), random(), random(), random(), scores, mask)


def inside(values: Tensor, mask: Tensor) -> list[list[float]]:
    """Each row's values at its tokens, as floats."""
    return [
        [v for v, m in zip(row, keep, strict=True) if m]
        for row, keep in zip(values.tolist(), mask.tolist(), strict=True)
    ]


def close(actual: Tensor, expected: list[list[float]], mask: Tensor) -> None:
    for row, wanted in zip(inside(actual, mask), expected, strict=True):
        np.testing.assert_allclose(row, wanted, rtol=1e-10, atol=1e-10)


# Scores and rewards


def test_shape_scores_by_each_rule() -> None:
    scores, finished = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([True, False, False])
    assert shape_scores(scores, finished, "subtract", 0.5).tolist() == [1.0, 1.5, -3.5]
    assert shape_scores(scores, finished, "replace", 0.5).tolist() == [1.0, -0.5, -0.5]
    assert shape_scores(scores, finished, "keep", 0.5).tolist() == [1.0, 2.0, -3.0]
    assert scores.tolist() == [1.0, 2.0, -3.0]


@given(rows(), st.sampled_from([0.0, 0.1, 2.0]))
@property_test
def test_token_rewards_are_the_penalty_at_each_token_and_the_score_at_the_last(sample: Rows, beta: float) -> None:
    expected = []
    for logp, ref, score in zip(
        inside(sample.a, sample.mask), inside(sample.b, sample.mask), sample.scores.tolist(), strict=True
    ):
        row = [-beta * (p - q) for p, q in zip(logp, ref, strict=True)]
        row[-1] += score
        expected.append(row)
    rewards = token_rewards(sample.scores, sample.a, sample.b, sample.mask, beta)
    close(rewards, expected, sample.mask)
    assert (rewards[~sample.mask] == 0).all()
    # summed over a response: the objective's r - beta log(pi / pi_ref)
    np.testing.assert_allclose(rewards.sum(1), [sum(row) for row in expected], rtol=1e-10, atol=1e-10)


# Advantages


def reference_gae(
    rewards: list[float], values: list[float], gamma: float, lam: float
) -> tuple[list[float], list[float]]:
    """arXiv 1506.02438, equation 16, as the double sum: A_t = sum_l (gamma lam)^l delta_{t+l}; V is 0 at the end."""
    length = len(rewards)
    following = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * following[t] - values[t] for t in range(length)]
    advantages = [
        sum((gamma * lam) ** (later - t) * deltas[later] for later in range(t, length)) for t in range(length)
    ]
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


@given(rows(), st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.sampled_from([0.9, 1.0]))
@property_test
def test_gae_is_the_sum_of_discounted_errors(sample: Rows, lam: float, gamma: float) -> None:
    advantages, returns = gae(sample.a, sample.b, sample.mask, gamma=gamma, lam=lam)
    pairs = [
        reference_gae(r, v, gamma, lam)
        for r, v in zip(inside(sample.a, sample.mask), inside(sample.b, sample.mask), strict=True)
    ]
    close(advantages, [a for a, _ in pairs], sample.mask)
    close(returns, [r for _, r in pairs], sample.mask)
    assert (advantages[~sample.mask] == 0).all()
    assert (returns[~sample.mask] == 0).all()


@given(rows())
@property_test
def test_gae_at_its_two_ends(sample: Rows) -> None:
    rewards, values = inside(sample.a, sample.mask), inside(sample.b, sample.mask)
    monte_carlo, returns = gae(sample.a, sample.b, sample.mask, gamma=1.0, lam=1.0)
    to_come = [[sum(row[t:]) for t in range(len(row))] for row in rewards]
    close(returns, to_come, sample.mask)
    close(
        monte_carlo,
        [[g - v for g, v in zip(gs, vs, strict=True)] for gs, vs in zip(to_come, values, strict=True)],
        sample.mask,
    )
    one_step, _ = gae(sample.a, sample.b, sample.mask, gamma=0.9, lam=0.0)
    td = [
        [r + 0.9 * after - v for r, v, after in zip(rs, vs, [*vs[1:], 0.0], strict=True)]
        for rs, vs in zip(rewards, values, strict=True)
    ]
    close(one_step, td, sample.mask)


# Losses


def reference_policy_loss(
    new: list[list[float]], old: list[list[float]], advantages: list[list[float]], eps: float
) -> tuple[float, int, list[list[float]]]:
    """Equation 7 of arXiv 1707.06347 as a loss, how often its minimum is the clipped term, and d loss / d log pi.

    Where the unclipped term is the minimum the derivative is -rho A; where the clipped one is, it is constant."""
    loss, clipped, gradient = 0.0, 0, []
    for ns, os, advs in zip(new, old, advantages, strict=True):
        gradient.append([])
        for n, o, a in zip(ns, os, advs, strict=True):
            ratio = math.exp(n - o)
            bounded = min(max(ratio, 1 - eps), 1 + eps)
            loss -= min(ratio * a, bounded * a)
            took_hold = bounded * a < ratio * a
            clipped += took_hold
            gradient[-1].append(0.0 if took_hold else -ratio * a)
    return loss, clipped, gradient


@given(rows(), st.sampled_from([0.1, 0.2, 0.5]))
@property_test
def test_policy_loss_and_its_gradient(sample: Rows, eps: float) -> None:
    old = torch.where(sample.mask, sample.a, 0.0)
    new = torch.where(sample.mask, sample.a + 0.3 * sample.b, 0.0).requires_grad_()
    loss = policy_loss(new, old, sample.c, sample.mask, eps)
    loss.total.backward()
    total, clipped, gradient = reference_policy_loss(
        *(inside(x.detach(), sample.mask) for x in (new, old, sample.c)), eps
    )
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-10, abs=1e-10)
    assert int(loss.clipped) == clipped
    assert new.grad is not None
    close(new.grad, gradient, sample.mask)
    assert (new.grad[~sample.mask] == 0).all()


def test_policy_loss_at_ratio_one_has_the_policy_gradient() -> None:
    """Where nothing has moved yet nothing is clipped, and the gradient is that of -A log pi."""
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -4.0]])
    loss = policy_loss(logprobs, logprobs.detach(), advantages, torch.ones(1, 2).bool(), 0.2)
    loss.total.backward()
    assert int(loss.clipped) == 0
    assert logprobs.grad is not None
    assert torch.equal(logprobs.grad, -advantages)


@pytest.mark.parametrize(
    "ratio, advantage, clipped", [(1.5, 1.0, True), (1.5, -1.0, False), (0.5, 1.0, False), (0.5, -1.0, True)]
)
def test_clipping_only_stops_what_went_too_far_the_good_way(ratio: float, advantage: float, clipped: bool) -> None:
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    loss = policy_loss(new, torch.zeros(1, 1), torch.tensor([[advantage]]), torch.ones(1, 1).bool(), 0.2)
    loss.total.backward()
    assert new.grad is not None
    assert (bool(loss.clipped), float(new.grad) == 0.0) == (clipped, clipped)


def reference_value_loss(
    values: list[list[float]], old: list[list[float]], returns: list[list[float]], clip: float
) -> tuple[float, int, list[list[float]]]:
    """0.5 max((V - R)^2, (V_old + clip(V - V_old) - R)^2) and its derivative by V."""
    loss, clipped, gradient = 0.0, 0, []
    for vs, os, rs in zip(values, old, returns, strict=True):
        gradient.append([])
        for v, o, r in zip(vs, os, rs, strict=True):
            near = v if clip == 0 or abs(v - o) <= clip else o + math.copysign(clip, v - o)
            loss += 0.5 * max((v - r) ** 2, (near - r) ** 2)
            took_hold = (near - r) ** 2 > (v - r) ** 2
            clipped += took_hold
            gradient[-1].append(0.0 if took_hold else v - r)
    return loss, clipped, gradient


@given(rows(), st.sampled_from([0.0, 0.2, 1.0]))
@property_test
def test_value_loss_and_its_gradient(sample: Rows, clip: float) -> None:
    values = sample.a.clone().requires_grad_()
    loss = value_loss(values, sample.b, sample.c, sample.mask, clip)
    loss.total.backward()
    total, clipped, gradient = reference_value_loss(
        *(inside(x, sample.mask) for x in (sample.a, sample.b, sample.c)), clip
    )
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-10, abs=1e-10)
    assert int(loss.clipped) == clipped
    assert values.grad is not None
    close(values.grad, gradient, sample.mask)
    assert (values.grad[~sample.mask] == 0).all()


# Padding


@given(rows(), st.integers(0, 3), st.sampled_from([-7.0, 0.0, 1e8]))
@property_test
def test_padding_changes_nothing(sample: Rows, columns: int, garbage: float) -> None:
    """More padding to the right, with anything in it, leaves every reward, advantage, loss and figure as it was."""

    def everything(s: Rows) -> list[list[list[float]]]:
        rewards = token_rewards(s.scores, s.a, s.b, s.mask, 0.3)
        advantages, returns = gae(rewards, s.c, s.mask, gamma=0.99, lam=0.95)
        raw_advantages, raw_returns = gae(s.a, s.b, s.mask, gamma=0.99, lam=0.95)
        tables = [inside(x, s.mask) for x in (rewards, advantages, returns, raw_advantages, raw_returns)]
        figures = [
            policy_loss(torch.where(s.mask, s.a, 0.0), torch.where(s.mask, s.b, 0.0), s.c, s.mask, 0.2).total,
            value_loss(s.a, s.b, s.c, s.mask, 0.2).total,
            explained_variance(s.a, s.b, s.mask),
        ]
        return [*tables, [[float(f)] for f in figures]]

    for got, wanted in zip(everything(sample.wider(columns, garbage)), everything(sample), strict=True):
        for row, expected in zip(got, wanted, strict=True):
            np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)


# The KL controller and explained variance


@given(
    st.floats(1e-3, 10),
    st.floats(0, 100),
    st.integers(1, 512),
    st.floats(0.1, 20),
    st.floats(100, 1e5),
)
@property_test
def test_adapt_kl_coef_is_the_controller_of_ziegler(
    beta: float, kl: float, n: int, target: float, horizon: float
) -> None:
    """e = clip((KL - target) / target, -0.2, 0.2); beta <- beta (1 + K e), with K = n / horizon."""
    error = (kl - target) / target
    error = -0.2 if error < -0.2 else 0.2 if error > 0.2 else error
    assert adapt_kl_coef(beta, kl, n, target, horizon) == pytest.approx(beta * (1 + error * n / horizon), rel=1e-9)


@given(rows())
@property_test
def test_explained_variance(sample: Rows) -> None:
    values = np.concatenate([np.array(row) for row in inside(sample.a, sample.mask)])
    returns = np.concatenate([np.array(row) for row in inside(sample.b, sample.mask)])
    if len(returns) > 1:
        expected = 1 - np.var(returns - values) / np.var(returns)
        assert explained_variance(sample.a, sample.b, sample.mask) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert explained_variance(sample.b, sample.b, sample.mask) == pytest.approx(1.0)
        # a constant explains nothing, and a constant error is no error: the figure is about the shape
        assert explained_variance(torch.full_like(sample.b, 3.0), sample.b, sample.mask) == pytest.approx(0.0, abs=1e-9)
        assert explained_variance(sample.b + 5, sample.b, sample.mask) == pytest.approx(1.0)
