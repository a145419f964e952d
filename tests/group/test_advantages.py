"""The advantages and losses of RLOO and GRPO against float64 loops written from the papers."""

from __future__ import annotations

import math

import pytest
import torch
from alignbench_group.groups import Experience
from alignbench_group.grpo import clipped_tokens
from alignbench_group.relative import group_advantages, with_kl
from alignbench_group.rloo import leave_one_out
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignbench import Sequences

property_test = settings(deadline=None, derandomize=True, max_examples=60)
group = st.lists(st.floats(-10, 10), min_size=2, max_size=6)


def one(values: list[float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


@given(group)
@property_test
def test_the_baseline_of_a_response_is_the_mean_of_the_others(rewards: list[float]) -> None:
    found = leave_one_out(one(rewards))[0].tolist()
    for i, (reward, advantage) in enumerate(zip(rewards, found, strict=True)):
        others = rewards[:i] + rewards[i + 1 :]
        assert advantage == pytest.approx(reward - sum(others) / len(others), abs=1e-9)


@given(group, st.integers(0, 5), st.floats(-5, 5))
@property_test
def test_a_responses_own_reward_does_not_move_its_baseline(rewards: list[float], which: int, by: float) -> None:
    """What makes it unbiased: raising R_i by d raises A_i by d, and lowers every other advantage by d / (k - 1)."""
    i, k = which % len(rewards), len(rewards)
    moved = [reward + by * (j == i) for j, reward in enumerate(rewards)]
    change = (leave_one_out(one(moved)) - leave_one_out(one(rewards)))[0].tolist()
    assert change == pytest.approx([by if j == i else -by / (k - 1) for j in range(k)], abs=1e-9)


@given(group)
@property_test
def test_leave_one_out_is_unbiased_for_the_policy_gradient(rewards: list[float]) -> None:
    """Over all k-tuples of draws, sum_i A_i 1[y_i = y] / k has mean p(y) (r(y) - E r): the exact gradient by logit."""
    k, actions = 2, len(rewards)
    p = torch.softmax(torch.arange(actions, dtype=torch.float64), 0)
    r = torch.tensor(rewards, dtype=torch.float64)
    draws = torch.cartesian_prod(*[torch.arange(actions)] * k)
    weight = p[draws].prod(1)
    advantages = leave_one_out(r[draws])
    seen = torch.nn.functional.one_hot(draws, actions).double()
    found = (weight[:, None, None] * advantages[:, :, None] * seen).sum((0, 1)) / k
    assert found.tolist() == pytest.approx((p * (r - (p * r).sum())).tolist(), abs=1e-9)


@given(group, st.sampled_from([None, 1e-4, 0.5]))
@property_test
def test_group_advantages_are_standardised_in_the_group(rewards: list[float], eps: float | None) -> None:
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    scale = 1.0 if eps is None else deviation + eps
    assert group_advantages(one(rewards), eps)[0].tolist() == pytest.approx([(r - mean) / scale for r in rewards])


def test_groups_do_not_touch_one_another() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 8.0]], dtype=torch.float64)
    for advantages in (leave_one_out, lambda r: group_advantages(r, 1e-4)):
        both = advantages(rewards)
        assert torch.equal(both, torch.cat([advantages(rewards[:1]), advantages(rewards[1:])]))


def random_part(seed: int) -> Experience:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(4)[None] < torch.tensor([4, 1, 3])[:, None]
    ids = torch.zeros(3, 4, dtype=torch.long)
    old, ref = (torch.randn(3, 4, generator=generator, dtype=torch.float64).masked_fill(~mask, 0.0) for _ in range(2))
    advantages = torch.randn(3, generator=generator, dtype=torch.float64)
    sampler = torch.rand(3, 4, generator=generator, dtype=torch.float64) + 0.5
    counted = torch.ones(3, dtype=torch.bool)
    return Experience(Sequences(ids[:, :1], mask[:, :1], ids, mask), old, ref, advantages, sampler, counted)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("seed", range(4))
def test_the_loss_and_its_gradient_token_by_token(estimator: str, seed: int) -> None:
    """Equation 3 of arXiv 2402.03300: min of the clipped surrogates, less beta D_KL, with the derivatives by hand."""
    part, weights, beta, eps = random_part(seed), torch.tensor([0.25, 1.0, 2.0], dtype=torch.float64), 0.3, 0.2
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed + 99), dtype=torch.float64)
    new = (part.logprobs + 0.3 * noise).requires_grad_()
    found = with_kl(clipped_tokens(new, part, weights, eps, None), new, part, weights, beta, estimator)
    found.total.backward()

    total, clipped, tokens = 0.0, 0, 0
    for i, length in enumerate((4, 1, 3)):
        for t in range(4):
            if t >= length:
                assert float(new.grad[i, t]) == 0
                continue
            n, o, r = (float(x[i, t].detach()) for x in (new, part.logprobs, part.ref_logprobs))
            a, w, rho = float(part.advantages[i]), float(weights[i] * part.weights[i, t]), math.exp(n - o)
            bounded = min(max(rho, 1 - eps), 1 + eps)
            kl, slope = (
                (0.5 * (n - r) ** 2, n - r)
                if estimator == "k2"
                else (math.exp(r - n) - 1 - (r - n), 1 - math.exp(r - n))
            )
            total += w * (-min(rho * a, bounded * a) + beta * kl)
            stopped = bounded * a < rho * a
            clipped, tokens = clipped + stopped, tokens + 1
            assert float(new.grad[i, t]) == pytest.approx(w * (-(0.0 if stopped else rho * a) + beta * slope))
    assert float(found.total.detach()) == pytest.approx(total)
    assert (int(found.clipped), int(found.ratios)) == (clipped, tokens)
