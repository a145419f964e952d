"""Where losses lead when everything is known: distributions over all responses, [X, Y] float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from alignbench import ExactProblem, functional

BISECTIONS, NEWTON = 100, 60


def identity_optimum(problem: ExactProblem, tau: float) -> Tensor:
    """pi_ref(y|x) exp(P(y) / tau) / Z(x), P(y) = E_{y' ~ pi_ref}[s(r(x, y) - r(x, y'))] (arXiv 2310.12036)."""
    wins = torch.sigmoid(problem.rewards[:, :, None] - problem.rewards[:, None, :])
    return functional.kl_optimum(problem.reference, torch.einsum("xyz,xz->xy", wins, problem.reference), tau)


def length_normalised_optimum(problem: ExactProblem, beta: float) -> Tensor:
    """pi_ref(y|x) exp(|y| (r(x, y) + c(x)) / beta): log-ratios per token differ as the rewards do, and c(x) makes it sum to 1."""
    tokens = torch.tensor([len(completion) for completion in problem.completions], dtype=torch.float64)

    def log_policy(shift: Tensor) -> Tensor:
        return problem.reference.log() + tokens * (problem.rewards + shift) / beta

    span = problem.rewards.abs().amax(1, keepdim=True)
    return bisected(log_policy, -span, span).softmax(1)


def regression_optimum(problem: ExactProblem, beta: float) -> Tensor:
    """What minimises E[(log pi / pi_ref - a)^2] over distributions, a(y) = (P(y) - 1/2) / beta and P(y) the probability that y beats another
    response of pi_ref (arXiv 2405.00675, equation 4.7).

    Pairs hold two different responses, so y comes with weight pi_ref(y) (1 - pi_ref(y)). With f = log pi / pi_ref and a multiplier k for
    sum pi = 1, f + k e^f / (1 - pi_ref) = a: the paper leaves the sum out, and takes log Z for its mean."""
    reference, rewards = problem.reference, problem.rewards
    wins = torch.sigmoid(rewards[:, :, None] - rewards[:, None, :]) - 0.5  # 0 against itself
    others = 1 - reference
    aim = torch.einsum("xyz,xz->xy", wins, reference) / others / beta

    def log_policy(negative: Tensor) -> Tensor:
        weight = (-negative / others).clamp(min=torch.finfo(torch.float64).tiny)
        # Right of the root, where f + w e^f is convex and rises: no step goes past it. e^f is at most about a / w there.
        ratio = torch.minimum(aim, (aim.clamp(min=1) / weight).log())
        for _ in range(NEWTON):
            ratio = ratio - (ratio + weight * ratio.exp() - aim) / (1 + weight * ratio.exp())
        return reference.log() + ratio

    # Jensen's inequality makes k positive but for a hair; the policy's mass falls as it grows, and no log-ratio is above 0 where k is a (1 - pi_ref).
    low = -(others * aim.clamp(min=0)).amax(1, keepdim=True)
    return bisected(log_policy, low, torch.zeros(len(aim), 1)).softmax(1)


def token_optimum(problem: ExactProblem, beta: float, share: float) -> Tensor:
    """pi_ref(z|s) exp(phi(s z)) / E_ref[exp(phi(s z))] at each beginning s of a response, where phi is r / beta of a whole response and
    phi(s) = (1 - share) log E_ref[exp(phi(s z))] + share E_ref[phi(s z)].

    There beta (log pi / pi_ref of a response + share times the sum of KL(pi_ref || pi) at its tokens) is r(x, y) + c(x), which is what TDPO's
    margins ask of all pairs (arXiv 2404.11999). With share 1 phi is what the reference will be worth, as the paper's Q; with 0 it is
    DPO's optimum."""
    starts = sorted({y[:end] for y in problem.completions for end in range(len(y))}, key=len, reverse=True)
    nodes = {y: column for column, y in enumerate(problem.completions)} | {
        start: len(problem.completions) + place for place, start in enumerate(starts)
    }
    mass, worth = (torch.full((len(problem.rewards), len(nodes)), math.nan, dtype=torch.float64) for _ in range(2))
    mass[:, : len(problem.completions)] = problem.reference
    worth[:, : len(problem.completions)] = problem.rewards / beta
    optimum = torch.zeros_like(mass)  # log pi of a node, given the one before
    for start in starts:  # the longest first: those that go on from it are known
        after = [nodes[other] for other in nodes if len(other) == len(start) + 1 and other[:-1] == start]
        mass[:, nodes[start]] = mass[:, after].sum(1)
        odds, phi = mass[:, after] / mass[:, [nodes[start]]], worth[:, after]
        expected = (odds.log() + phi).logsumexp(1)
        worth[:, nodes[start]] = (1 - share) * expected + share * (odds * phi).sum(1)
        optimum[:, after] = odds.log() + phi - expected[:, None]
    steps = [[nodes[y[:end]] for end in range(1, len(y) + 1)] for y in problem.completions]
    return torch.stack([optimum[:, path].sum(1) for path in steps], 1).exp()


def bisected(log_policy: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """The `log_policy` of that shift, [X, 1], at which its mass, which rises with it, is 1."""
    low, high = low.double(), high.double()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        heavy = log_policy(middle).logsumexp(1, keepdim=True) > 0
        low, high = torch.where(heavy, low, middle), torch.where(heavy, middle, high)
    return log_policy((low + high) / 2)
