"""The best that any policy could do at a KL, from samples of the SFT model alone: no training, mathematics on tensors.

E[r] - beta KL(pi || pi_sft) is greatest at pi_beta(y|x) = pi_sft(y|x) exp(r(x, y) / beta) / Z(x), and as beta falls from infinity
to 0 these are the policies of the greatest reward at each KL: the frontier. Samples of pi_sft become samples of pi_beta by the
weights w ~ exp(r / beta), normalised for each prompt. Everything is float64, [P] or [P, N]: P prompts, N responses to each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 8.0
"""Effective samples a prompt at the reach. The reward at a given KL is then too low by about beta / 2 (1 / FEWEST - 1 / N), the delta
method's bias of log Z; what a tilt says of one prompt needs more of them."""
_STEPS = 60  # of a bisection over the logarithm of beta: far below float64's rounding


@dataclass(frozen=True)
class Tilt:
    """pi_beta as weights on the samples of each prompt, [P, N]. `log_z`, `kl` (nats per response) and `ess` are [P].

    `ess` = 1 / sum w^2 is how many even samples would estimate a mean as well (Kish 1965)."""

    beta: float
    weights: Tensor
    log_z: Tensor
    kl: Tensor
    ess: Tensor

    def expected(self, column: Tensor) -> Tensor:
        """[P]: the mean of a [P, N] column under pi_beta. NaN in it does not apply: the mean is over the rest, NaN of nothing."""
        known = ~column.isnan()
        mass = (self.weights * known).sum(1)
        total = (self.weights * torch.where(known, column, 0.0)).sum(1)
        return torch.where(known.any(1), total / mass, math.nan)


def tilt(scores: Tensor, beta: float, prior: Tensor | None = None) -> Tilt:
    """pi_beta of `scores` [P, N]; `beta` may be infinite: the SFT model itself.

    `prior` [P, N] are the probabilities of the columns, where all responses are written down: then nothing is estimated."""
    scores = scores.double()
    even = torch.full_like(scores, -math.log(scores.shape[1]))
    log_prior = even if prior is None else prior.double().log()
    log_weights = log_prior + scores / beta
    log_z = log_weights.logsumexp(1)
    log_weights = log_weights - log_z[:, None]
    weights = log_weights.exp()
    # What has no weight counts nothing: 0 log 0 = 0.
    kl = torch.where(weights > 0, weights * (log_weights - log_prior), 0.0).sum(1).clamp(min=0.0)
    return Tilt(beta, weights, log_z, kl, 1 / (weights**2).sum(1))


def at_kl(scores: Tensor, kl: float, prior: Tensor | None = None) -> Tilt | None:
    """The tilt whose mean KL over the prompts is `kl`; None where none has so much. The KL falls as beta rises."""
    low, high = _betas(scores)
    if not kl > 0 or float(tilt(scores, low, prior).kl.mean()) < kl:
        return None
    return _bisected(scores, lambda t: float(t.kl.mean()) > kl, low, high, prior)


def reach(scores: Tensor) -> Tilt:
    """The tilt as far from the SFT model as these samples can tell: less than FEWEST of them would stand beyond.

    They are averaged as their errors are, by the harmonic mean over the prompts. KL stays below log(N / FEWEST), since
    no KL is above the Renyi divergence of order 2, log(N / ess) here."""
    low, high = _betas(scores)
    if scores.shape[1] <= FEWEST:
        return tilt(scores, math.inf)
    return _bisected(scores, lambda t: effective(t) < FEWEST, low, high, None)


def effective(found: Tilt) -> float:
    """Effective samples a prompt: the harmonic mean, to which the error of the mean of log Z answers."""
    return float(1 / (1 / found.ess).mean())


def along(scores: Tensor, points: int) -> Iterator[Tilt]:
    """The frontier from the SFT model to its reach: tilts evenly apart in the square root of their KL, where it is nearly straight."""
    end = reach(scores)
    far = math.sqrt(float(end.kl.mean()))
    yield tilt(scores, math.inf)
    for step in range(1, points):
        if step == points - 1:
            yield end
        elif found := at_kl(scores, (far * step / (points - 1)) ** 2):
            yield found


def shortfall(scores: Tensor, proxy: Tensor, kl: Tensor) -> Tensor | None:
    """How far a policy with these mean scores and KLs [P] stays below the frontier at its own mean KL, by prompt; None where that is
    0 or less, or beyond the reach.

    By duality the frontier at K is min over beta of beta E[log Z] + beta K. So the gap is the mean of
    beta log Z(x) - (r(x) - beta kl(x)), which is beta KL(pi || pi_beta) of each prompt; and since beta is where that is least,
    an error of the KL moves both sides alike: these values carry its uncertainty too."""
    mean = float(kl.double().mean())
    if not 0 < mean <= float(reach(scores).kl.mean()):
        return None
    found = at_kl(scores, mean)
    return None if found is None else found.beta * found.log_z - (proxy.double() - found.beta * kl.double())


def _betas(scores: Tensor) -> tuple[float, float]:
    """Beyond them the tilt is the best response of each prompt, or the SFT model."""
    spread = float((scores.double().amax(1) - scores.double().amin(1)).max()) or 1.0
    return spread * 1e-4, spread * 1e6


def _bisected(scores: Tensor, too_far: Callable[[Tilt], bool], low: float, high: float, prior: Tensor | None) -> Tilt:
    """The smallest beta between `low` and `high` at which a tilt is not `too_far`, which it is below that and not above."""
    found = tilt(scores, low, prior)
    if not too_far(found):
        return found
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        found = tilt(scores, middle, prior)
        low, high = (middle, high) if too_far(found) else (low, middle)
    return tilt(scores, high, prior)
