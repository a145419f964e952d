"""The KL in the loss: whose gradient each estimate has, where it comes to rest, and what one nat costs. All by enumeration."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from alignbench_ppo.config import PPOConfig
from alignbench_ppo.kl_loss import LossKL
from alignbench_ppo.ppo import PPO
from torch import Tensor

from alignbench import UserError

TOKENS = 3
# Every response of a language of three tokens in which token 0 ends: it alone, or another and then any.
RESPONSES = [(0, 0), *((a, b) for a in (1, 2) for b in range(TOKENS))]
MASK = torch.tensor([[True, False], *[[True, True]] * 6])
STATES = torch.tensor([[0, 0], *([0, a] for a in (1, 2) for _ in range(TOKENS))])
SAMPLED = torch.tensor(RESPONSES)


@dataclass(frozen=True)
class World:
    """Logits [states, tokens] of a policy and of its reference, float64, and rewards of every response."""

    logits: Tensor
    reference: Tensor
    rewards: Tensor


def world(seed: int = 0) -> World:
    draw = torch.Generator().manual_seed(seed)
    policy, reference = torch.randn(2, TOKENS, TOKENS, generator=draw, dtype=torch.float64)
    return World(policy.requires_grad_(), reference, torch.randn(7, generator=draw, dtype=torch.float64))


def logprobs(logits: Tensor) -> Tensor:
    """[responses, 2]: of the tokens, 0 after the end."""
    return torch.where(MASK, torch.log_softmax(logits, 1)[STATES, SAMPLED], 0.0)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def in_loss(estimator: str, policy: Tensor, reference: Tensor, before: Tensor | None = None) -> Tensor:
    """Its expectation over responses of the policy `before` (by default as it stands), as a function of the policy."""
    new = logprobs(policy)
    old = (new if before is None else logprobs(before)).detach()
    drawn = old.sum(1, keepdim=True).exp().expand_as(old)
    made = LossKL.of(old, logprobs(reference), MASK, drawn, kl_coef=1.0, estimator=estimator, advantages=None)
    assert made is not None
    return made.total(new, MASK)


def kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || pi_ref) of responses, written down."""
    new = logprobs(policy).sum(1)
    return (new.exp() * (new - logprobs(reference).sum(1))).sum()


def kl_of_tokens(policy: Tensor, reference: Tensor, *, reverse: bool = False) -> Tensor:
    """The sum over states of how often they are reached, held fixed, times the KL of the token there; `reverse`: KL(pi_ref || pi)."""
    own, other = (torch.log_softmax(logits, 1) for logits in (policy, reference))
    first = own[0].exp().detach()
    reached = torch.stack([torch.ones(()).double(), first[1], first[2]])
    one, two = (other, own) if reverse else (own, other)
    return (reached * (one.exp() * (one - two)).sum(1)).sum()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_unbiased_estimate_has_the_gradient_of_the_kl_of_responses(seed: int) -> None:
    here = world(seed)
    found = gradient(in_loss("unbiased", here.logits, here.reference), here.logits)
    torch.testing.assert_close(found, gradient(kl(here.logits, here.reference), here.logits))


def test_k2_and_k3_have_the_gradients_of_other_divergences() -> None:
    """Of a token by itself: k2 that of KL(pi || pi_ref), k3 that of KL(pi_ref || pi)."""
    here = world()
    true = gradient(kl(here.logits, here.reference), here.logits)
    for estimator, reverse in (("k2", False), ("k3", True)):
        found = gradient(in_loss(estimator, here.logits, here.reference), here.logits)
        wanted = gradient(kl_of_tokens(here.logits, here.reference, reverse=reverse), here.logits)
        torch.testing.assert_close(found, wanted)
        assert float((found - true).norm() / true.norm()) > 0.05


def test_its_own_half_stays_unbiased_after_steps_away_from_what_was_sampled() -> None:
    """At the last token, where nothing follows, and for states that are reached as often as before."""
    here, before = world(), world(1).logits.detach()
    found = gradient(in_loss("unbiased", here.logits, here.reference, before), here.logits)
    own, other = (torch.log_softmax(logits, 1) for logits in (here.logits, here.reference))
    reached = torch.softmax(before, 1)[0]
    tokens = sum(reached[a] * (own[a].exp() * (own[a] - other[a])).sum() for a in (1, 2))
    torch.testing.assert_close(found[1:], gradient(tokens, here.logits)[1:])
    plain = gradient(in_loss("k3", here.logits, here.reference, before), here.logits)
    assert float((plain - found)[1:].norm() / found[1:].norm()) > 0.2


@pytest.mark.parametrize("estimator, rests", [("unbiased", True), ("k2", False), ("k3", False)])
def test_only_the_unbiased_estimate_rests_at_the_optimum_of_the_kl_in_the_reward(estimator: str, rests: bool) -> None:
    """pi* = pi_ref exp(r) / Z is written as logits; the expected policy gradient there, with exact values and the KL in the loss."""
    here = world()
    second = here.reference[1:].log_softmax(1) + here.rewards[1:].reshape(2, TOKENS)
    soft = torch.cat([here.rewards[:1], second.logsumexp(1)])
    star = torch.cat([(here.reference[0].log_softmax(0) + soft)[None], second]).requires_grad_()
    new = logprobs(star)
    chances = new.detach().sum(1).exp()
    torch.testing.assert_close(chances, torch.softmax(logprobs(here.reference).sum(1) + here.rewards, 0))

    worth = -(chances * here.rewards * new.sum(1)).sum()
    found = gradient(worth + in_loss(estimator, star, here.reference), star)
    assert (float(found.abs().max()) < 1e-12) == rests
    assert float(gradient(-(logprobs(star).sum(1) * chances * here.rewards).sum(), star).abs().max()) > 0.05


def test_a_nat_costs_what_advantages_are_divided_by() -> None:
    old = logprobs(world().logits).detach()
    advantages = torch.where(MASK, torch.randn(7, 2, generator=torch.Generator().manual_seed(2)).double(), 1e6)
    ones, wanted = torch.ones_like(old), (0.3 / float(advantages[MASK].std(correction=0)), 0.3)
    for given, price in zip((advantages, None), wanted, strict=True):
        made = LossKL.of(old, old, MASK, ones, kl_coef=0.3, estimator="k3", advantages=given)
        assert made is not None and float(made.price) == pytest.approx(price)
    assert LossKL.of(old, old, MASK, ones, kl_coef=0.0, estimator="k3", advantages=None) is None


def test_what_stands_at_padding_is_not_read() -> None:
    here = world()
    new = torch.where(MASK, logprobs(here.logits), float("nan"))
    made = LossKL.of(
        new.detach(), new.detach() - 1, MASK, torch.ones_like(new.detach()), kl_coef=1.0, estimator="unbiased",
        advantages=None,
    )  # fmt: skip
    assert made is not None and float(made.ahead[0, 0]) == 0
    assert bool(torch.isfinite(made.total(new.detach(), MASK)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kl_in": "advantage"}, "Choices: loss, reward"),
        ({"kl_estimator": "k1"}, "Choices: k2, k3, unbiased"),
        ({"kl_in": "loss", "whiten_rewards": True}, "whiten_rewards=true"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PPOConfig(**changes)


def test_where_no_kl_is_paid_there_is_no_price() -> None:
    assert PPO.optimum(PPOConfig(kl_in="loss", kl_coef=0.0), None) is None  # type: ignore[arg-type]
