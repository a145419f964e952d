"""Where self-play and optimism lead when everything is known: distributions over all responses, [X, Y] float64."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import ExactProblem, functional

CLOSE, ITERATIONS, STEPS, LONGEST = 1e-10, 20_000, 200, 1e4


def equilibrium(problem: ExactProblem, wins: Tensor, *, tau: float, share: float = 0.0) -> Tensor | None:
    """The pi with pi(y) = pi_ref(y) exp(P(y) / tau) / Z, P(y) the probability that y beats a response of the geometric mixture of pi and
    pi_ref, by `wins` [X, Y, Y]; None where it is not found.

    share = 0: the Nash equilibrium of the game whose payoff is P(pi beats pi') - tau KL(pi || pi_ref) + tau KL(pi' || pi_ref), which is
    unique (arXiv 2312.00886). share = 1: IPO's optimum. Between them the mixture answers in pi's place.

    Of a game, iterating the best answer runs in circles where tau is small: a step goes only as far as it comes nearer."""
    paths = Paths.of(problem.completions)
    reference = problem.reference.double().log()
    log_policy, least = reference, 1 / (1 + (0.5 / tau) ** 2)

    def answer(log_policy: Tensor) -> Tensor:
        opponent = paths.mixed(log_policy, reference, share).exp()
        return torch.log_softmax(reference + torch.einsum("xyz,xz->xy", wins.double(), opponent) / tau, 1)

    pull = answer(log_policy) - log_policy
    step = 1.0
    for _ in range(ITERATIONS):
        off = float(pull.abs().max())
        if off < CLOSE:
            return log_policy.exp()
        there = torch.log_softmax(log_policy + step * pull, 1)
        found = answer(there) - there
        if float(found.abs().max()) < off or step <= least:
            log_policy, pull, step = there, found, min(1.0, 1.3 * step)
        else:
            step = max(step / 2, least)
    return None


class Paths:
    """Every response as the way to it in the tree of beginnings: nodes [Y, T], `parents` [N] of each node; the node N is none."""

    def __init__(self, nodes: Tensor, parents: Tensor) -> None:
        self._nodes, self._parents, self._count = nodes, parents, len(parents)

    @classmethod
    def of(cls, completions: tuple[tuple[int, ...], ...]) -> Paths:
        numbers: dict[tuple[int, ...], int] = {}
        for completion in completions:
            for end in range(1, len(completion) + 1):
                numbers.setdefault(completion[:end], len(numbers))
        root = none = len(numbers)
        longest = max(len(completion) for completion in completions)
        ways = [[numbers[c[:end]] for end in range(1, len(c) + 1)] + [none] * (longest - len(c)) for c in completions]
        return cls(torch.tensor(ways), torch.tensor([numbers.get(begin[:-1], root) for begin in numbers]))

    def conditionals(self, log_policy: Tensor) -> Tensor:
        """[X, N]: log-probabilities of each node's last token after what comes before it."""
        rows = len(log_policy)
        mass = torch.zeros(rows, self._count + 1, dtype=torch.float64)
        for column in self._nodes.T:
            mass = mass.index_add(1, column, log_policy.exp())
        mass[:, -1] = 1.0  # of the root, which all begin at
        tiny = torch.finfo(torch.float64).tiny
        return mass[:, :-1].clamp(min=tiny).log() - mass[:, self._parents].clamp(min=tiny).log()

    def mixed(self, one: Tensor, other: Tensor, share: float) -> Tensor:
        """[X, Y]: log-probabilities of the mixture one^(1 - share) other^share of each token."""
        if share in (0.0, 1.0):
            return other if share else one
        logits = (1 - share) * self.conditionals(one) + share * self.conditionals(other)
        total = torch.zeros(len(one), self._count + 1, dtype=torch.float64).index_add(1, self._parents, logits.exp())
        tokens = torch.nn.functional.pad(logits - total[:, self._parents].log(), (0, 1))
        return tokens[:, self._nodes].sum(2)


def optimistic(reference: Tensor, scores: Tensor, beta: float, alpha: float) -> Tensor | None:
    """The pi at which XPO's gradient is 0 where pi itself and pi_ref draw the pairs; None where it is not found, as where there is none:
    nothing keeps a response whose win rate against pi is below alpha / beta from being given up without end.

    By the logit of y it is beta sum_y' (s(beta h) - s(r(y) - r(y'))) (pi(y) pi_ref(y') + pi_ref(y) pi(y')) + alpha (pi_ref(y) - pi(y)), h
    the difference of log pi / pi_ref. For alpha = 0 every term is 0 at pi_ref exp(r / beta) / Z, from where the search starts."""
    plain = functional.kl_optimum(reference, scores, beta)
    if alpha == 0:
        return plain
    wins = torch.sigmoid(scores[:, :, None] - scores[:, None, :])
    found = [stationary(*row, beta, alpha) for row in zip(plain, reference, wins, strict=True)]
    return torch.stack([row for row in found if row is not None]) if all(row is not None for row in found) else None


def stationary(start: Tensor, prior: Tensor, wins: Tensor, beta: float, alpha: float) -> Tensor | None:
    """Of one prompt, [Y]: what the flow along the gradient comes to, by implicit steps that grow until they are Newton's."""
    logits, time = start.log(), 100.0
    for _ in range(STEPS):
        policy, ratio = torch.softmax(logits, 0), torch.log_softmax(logits, 0) - prior.log()
        likely = torch.sigmoid(beta * (ratio[:, None] - ratio))
        off, drawn = likely - wins, policy[:, None] * prior + prior[:, None] * policy
        pull = beta * (off * drawn).sum(1) + alpha * (prior - policy)
        if float(pull.abs().max()) < CLOSE * float(prior.max()):
            return policy
        # Its derivative by every logit: by the margins, and by the policy that draws.
        curved, moved = beta**2 * likely * (1 - likely) * drawn, policy.diag() - torch.outer(policy, policy)
        slope = curved.sum(1).diag() - curved - alpha * moved
        slope = slope + beta * ((off @ prior)[:, None] * moved + prior[:, None] * (off @ moved))
        scale = policy + prior  # as often as each response comes, so that all are as fast
        step = torch.linalg.solve(slope / scale[:, None] + torch.eye(len(logits)) / time, pull / scale)
        logits, time = torch.log_softmax(logits - step, 0), min(1.5 * time, LONGEST)
    return None
