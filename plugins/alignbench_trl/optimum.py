"""Where GRPO's KL in the loss leads when everything is known.

At a prefix s the trainer's step is sum_a pi(a|s) A(s, a) grad log pi(a|s) - beta grad K, where A is Q(s, a), the expected reward after a, less a
baseline; a baseline that is the mean of a group of k, the response itself included, makes it (k - 1) / k of that. It stands still, with
c = beta k / (k - 1) and l(s) that makes the probabilities sum to 1, at

    pi(a|s) ~ pi_ref(a|s) exp(Q(s, a) / c)         for K = KL(pi || pi_ref) at the token: k3 times the probability ratio,
    pi(a|s) = c pi_ref(a|s) / (l(s) - Q(s, a))     for K = KL(pi_ref || pi): the gradient of k3 alone (arXiv 2007.12509).

Neither is pi_ref exp(r / beta) / Z: at an earlier token nothing is paid for the KL of later ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import ExactProblem

HALVINGS = 80


def kl_in_loss_optimum(problem: ExactProblem, kl_coef: float, *, samples: int, unbiased: bool) -> Tensor:
    """[X, Y]: the fixed point above, from the longest prefixes up."""
    price = kl_coef * samples / (samples - 1)
    mass = {completion: problem.reference[:, y] for y, completion in enumerate(problem.completions)}
    value = {completion: problem.rewards[:, y] for y, completion in enumerate(problem.completions)}
    chosen: dict[tuple[int, ...], Tensor] = {}
    for length in range(max(map(len, problem.completions)), 0, -1):
        below: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for prefix in mass:
            if len(prefix) == length:
                below.setdefault(prefix[:-1], []).append(prefix)
        for parent, children in below.items():
            weights, values = (torch.stack([known[child] for child in children], 1) for known in (mass, value))
            total = weights.sum(1, keepdim=True)
            prior = torch.where(total > 0, weights / total, 1 / len(children))
            found = (prior.log() + values / price).softmax(1) if unbiased else hyperbolic(prior, values, price)
            chosen |= dict(zip(children, found.unbind(1), strict=True))
            mass[parent], value[parent] = total[:, 0], (found * values).sum(1)
    reached = [
        torch.stack([chosen[completion[:end]] for end in range(1, len(completion) + 1)]).prod(0)
        for completion in problem.completions
    ]
    return torch.stack(reached, 1)


def hyperbolic(prior: Tensor, values: Tensor, price: float) -> Tensor:
    """price prior / (m + max Q - Q), with the m in (0, price] for which it sums to 1."""
    gap = values.amax(1, keepdim=True) - values
    low, high = torch.zeros_like(gap[:, :1]), torch.full_like(gap[:, :1], price)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        over = (price * prior / (middle + gap)).sum(1, keepdim=True) > 1
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    weights = price * prior / (high + gap)
    return weights / weights.sum(1, keepdim=True)
