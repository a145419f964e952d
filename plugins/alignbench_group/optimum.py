"""Where GRPO, what follows it, and MaxRL come to rest, in a world small enough to write down every completion.

KL in the reward. At pi* = pi_ref exp(r / beta) / Z every response has the same R = r - beta log(pi / pi_ref), so every
advantage is exactly 0, whatever divides it. It is the only such point: the expected advantage of a response in a group
grows strictly with its R, divided by the group's deviation or not, and has mean 0; a gradient that vanishes at every
state asks that advantage times weight be the same constant for every response, which mean 0 makes 0.

KL in the loss. Its gradient acts at the states that were visited, and does not flow into which states are visited. At
each state s, with A the advantage of the response and Q(s, a) the expected reward after a, the loss stands still where

    sum_a pi(a|s) E[A | s, a] grad log pi(a|s) = beta E_{a ~ pi}[grad k(a)].

k3 = pi_ref/pi - 1 - log(pi_ref/pi) has E_pi[grad k3] = -sum_a pi_ref grad log pi, the gradient of KL(pi_ref || pi), and
k2 = (log pi/pi_ref)^2 / 2 has E_pi[grad k2] = grad KL(pi || pi_ref). With c = beta / scale, `scale` turning rewards into
advantages, and lambda(s) such that the probabilities sum to 1 (for k3 the form of Grill et al., arXiv 2007.12509):

    k3: pi(a|s) = c pi_ref(a|s) / (lambda(s) - Q(s, a)),    k2: pi(a|s) ~ pi_ref(a|s) exp(Q(s, a) / c).

Neither is pi*: what a later token will cost in KL is not seen by an earlier one.

MaxRL. Let p be the probability of success, and K of k responses succeed. Over the other k - 1 responses, the advantage
(r - K/k) / (K/k), 0 where none succeeds, of a success lies above that of a failure by

    w(p) = (1 - (1 - p)^(k - 1)) / p = sum over j < k of (1 - p)^(j - 1),

the derivative of the log-probability of success, log p = -sum_j (1 - p)^j / j, cut off after k - 1 terms. (A group in which
none succeeds gives nothing: this is what the k-th term is lost to.) With a price of beta a nat it rests at
pi_ref exp(lambda 1[success]) / Z with beta lambda = w(p), which has one solution: w falls with p, and p rises with lambda.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignbench import ExactProblem, functional
from alignbench_group.config import MaxRLConfig, RelativeConfig

_HALVINGS = 60
_GRID = 32


def grpo_optimum(config: RelativeConfig, problem: ExactProblem, scores: Tensor) -> Tensor | None:
    """Of `scores` [X, Y]: pi* with the KL in the reward; with the KL in the loss, the fixed point above, state by state.

    In the loss, a mean that includes the response itself shrinks advantages by (k - 1) / k, which is accounted for;
    with scale_by_std it is the limit of large groups, in which c = beta times the standard deviation of the rewards under
    the very policy, found by bisection. None where theory gives none: kl_coef=0 (no finite optimum), another temperature
    (the policy optimised is not the one evaluated), and, in the loss, responses divided by lengths that differ (the
    baseline then no longer cancels), k2 with scale_by_std (a deterministic policy is a second fixed point: advantages
    stay of size 1 while the rewards' spread vanishes) or several solutions for the standard deviation."""
    if config.kl_coef == 0 or config.temperature != 1:
        return None
    if config.kl_in == "reward":
        return functional.kl_optimum(problem.reference, scores, config.kl_coef)
    lengths = {len(completion) for completion in problem.completions}
    if config.divides_by == "response" and len(lengths) > 1:
        return None
    tree = prefix_tree(problem.completions)
    if not config.scale_by_std:
        others = 1 - 1 / config.samples_per_prompt
        price = torch.full_like(scores[:, 0], config.kl_coef / others)
        return fixed_point(tree, problem.reference, scores, price, config.kl_estimator)
    return None if config.kl_estimator == "k2" else self_scaled(tree, problem.reference, scores, config)


@dataclass(frozen=True)
class Level:
    """The states of one depth: `parents` [S] and their `children` [S, A], as node numbers; padded with the last node."""

    parents: Tensor
    children: Tensor


@dataclass(frozen=True)
class Tree:
    """All prefixes of the completions, N nodes: the empty prefix is 0, completion y is `leaves[y]`, the last is padding."""

    levels: tuple[Level, ...]
    leaves: Tensor
    nodes: int


def prefix_tree(completions: Sequence[tuple[int, ...]]) -> Tree:
    numbers: dict[tuple[int, ...], int] = {(): 0}
    below: dict[tuple[int, ...], list[int]] = {}
    for completion in completions:
        for end in range(1, len(completion) + 1):
            if completion[:end] not in numbers:
                numbers[completion[:end]] = len(numbers)
                below.setdefault(completion[: end - 1], []).append(numbers[completion[:end]])
    padding = len(numbers)
    levels = []
    for depth in range(max(len(prefix) for prefix in below) + 1):
        states = [prefix for prefix in below if len(prefix) == depth]
        width = max(len(below[prefix]) for prefix in states)
        children = [below[prefix] + [padding] * (width - len(below[prefix])) for prefix in states]
        levels.append(Level(torch.tensor([numbers[prefix] for prefix in states]), torch.tensor(children)))
    return Tree(tuple(levels), torch.tensor([numbers[completion] for completion in completions]), padding + 1)


def fixed_point(tree: Tree, reference: Tensor, rewards: Tensor, price: Tensor, estimator: str) -> Tensor:
    """[X, Y]: pi(a|s) of the k2 or k3 form at every state, from the leaves up; `price` [X] is c, in reward units per nat."""
    rule = {"k2": _exponential, "k3": _hyperbolic}[estimator]
    mass = reference.new_zeros(len(reference), tree.nodes)
    value, chosen, reached = mass.clone(), mass.clone(), mass.clone()
    mass[:, tree.leaves], value[:, tree.leaves] = reference, rewards
    for level in reversed(tree.levels):
        below = mass[:, level.children]
        total = below.sum(2, keepdim=True)
        mass[:, level.parents] = total[:, :, 0]
        # A state that the reference never reaches: anything does, and nothing comes of it.
        prior = torch.where(total > 0, below / total, 1 / below.shape[2])
        probabilities = rule(prior, value[:, level.children], price[:, None, None])
        chosen[:, level.children] = probabilities
        value[:, level.parents] = (probabilities * value[:, level.children]).sum(2)
    reached[:, 0] = 1.0
    for level in tree.levels:
        reached[:, level.children] = chosen[:, level.children] * reached[:, level.parents][:, :, None]
    return reached[:, tree.leaves]


def _exponential(prior: Tensor, values: Tensor, price: Tensor) -> Tensor:
    return torch.softmax(prior.log() + values / price, dim=2)


def _hyperbolic(prior: Tensor, values: Tensor, price: Tensor) -> Tensor:
    """c prior / (m + gap), gap = max Q - Q: the m in (0, c] for which it sums to 1, by bisection (the sum falls with m)."""
    reachable = values.masked_fill(prior == 0, -torch.inf)
    gap = reachable.amax(2, keepdim=True) - values
    low, high = torch.zeros_like(price * gap[:, :, :1]), price.expand_as(gap[:, :, :1])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        over = torch.where(prior > 0, price * prior / (middle + gap), 0.0).sum(2, keepdim=True) > 1
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    weights = torch.where(prior > 0, price * prior / (high + gap), 0.0)
    return weights / weights.sum(2, keepdim=True)


def self_scaled(tree: Tree, reference: Tensor, rewards: Tensor, config: RelativeConfig) -> Tensor | None:
    """The k3 fixed point at c = kl_coef (sd + std_eps), sd the standard deviation of the rewards under it."""

    def solve(deviation: Tensor) -> Tensor:
        return fixed_point(tree, reference, rewards, config.kl_coef * (deviation + config.std_eps), "k3")

    def excess(deviation: Tensor) -> Tensor:
        found = solve(deviation)
        mean = (found * rewards).sum(1, keepdim=True)
        return (found * (rewards - mean) ** 2).sum(1).sqrt() - deviation

    low = torch.zeros_like(rewards[:, 0])
    high = (rewards.amax(1) - rewards.amin(1)) / 2  # no distribution on them deviates more
    signs = torch.stack([excess(high * (i / _GRID) ** 2) > 0 for i in range(_GRID + 1)])
    if bool((signs[1:] & ~signs[:-1]).any()):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        over = excess(middle) > 0
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return solve((low + high) / 2)


def maxrl_optimum(config: MaxRLConfig, problem: ExactProblem) -> Tensor | None:
    """The tilt above, by bisection of lambda. None for kl_coef=0 (no finite optimum) and another temperature (the policy optimised is
    not the one evaluated)."""
    scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
    if scores is None or config.kl_coef == 0 or config.temperature != 1:
        return None
    success = (scores > config.success_above).to(scores.dtype)
    others = config.samples_per_prompt - 1

    def tilted(pull: Tensor) -> Tensor:
        return functional.kl_optimum(problem.reference, pull * success, 1.0)

    low = torch.zeros_like(scores[:, :1])
    high = low + others / config.kl_coef
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        p = (tilted(middle) * success).sum(1, keepdim=True).clamp(min=1e-12)
        weight = (1 - (1 - p).clamp(min=0) ** others) / p
        below = config.kl_coef * middle < weight
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return tilted((low + high) / 2)
