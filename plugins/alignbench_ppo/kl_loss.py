"""The KL penalty as a loss of its own beside the clipped one, where `kl_in=loss`.

What is differentiated decides what is optimised, not how well an estimate tells the KL. k1 = log(pi / pi_ref) in a loss has the
expected gradient 0, k3 that of KL(pi_ref || pi); k2 has that of the KL, of each token by itself: what a token leads to is left out
(Tang and Munos, arXiv 2506.09477; Shah et al., arXiv 2512.21852).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alignbench import functional


@dataclass(frozen=True)
class LossKL:
    """What the optimisation phase holds fixed of it. Tensors are [B, R]: log-probabilities before the first step and of the reference,
    `ahead` the log-ratios of the tokens after each one, `weights` those of the sampler. `price`: a scalar, of one nat."""

    price: Tensor
    estimator: str
    logprobs: Tensor
    reference: Tensor
    ahead: Tensor
    weights: Tensor

    @classmethod
    def of(
        cls,
        logprobs: Tensor,
        reference: Tensor,
        mask: Tensor,
        weights: Tensor,
        *,
        kl_coef: float,
        estimator: str,
        advantages: Tensor | None,
    ) -> LossKL | None:
        """`kl_coef`: what a nat costs that is not in the reward; None where it costs nothing. `advantages`: before they were whitened,
        None where they are not. What divides them divides the price too: else kl_coef would not be in units of the reward, and the
        optimum would move with the batch."""
        if kl_coef == 0:
            return None
        ratios = torch.where(mask, functional.kl_k1(logprobs, reference), torch.zeros_like(logprobs))
        ahead = ratios.flip(1).cumsum(1).flip(1) - ratios
        price = torch.as_tensor(kl_coef, dtype=logprobs.dtype, device=logprobs.device)
        if advantages is not None:
            spread = functional.masked_mean((advantages - functional.masked_mean(advantages, mask)) ** 2, mask)
            price = price * torch.rsqrt(spread + 1e-8)
        return cls(price, estimator, logprobs, reference, ahead, weights)

    def select(self, rows: Tensor, width: int) -> LossKL:
        """The given rows, the first `width` columns of each."""
        kept = (part[rows, :width] for part in (self.logprobs, self.reference, self.ahead, self.weights))
        return LossKL(self.price, self.estimator, *kept)

    def total(self, new: Tensor, mask: Tensor) -> Tensor:
        """Summed over the mask, under the policy as it stands ([B, R], differentiable)."""
        return self.price * functional.masked_sum(self.weights * self._terms(new), mask)

    def _terms(self, new: Tensor) -> Tensor:
        if self.estimator == "k2":
            return functional.kl_k2(new, self.reference)
        own = functional.kl_k3(new, self.reference)
        if self.estimator == "k3":
            return own
        # d(ratio * k3) = ratio * log(pi / pi_ref) * d(log pi), also after steps away from what was sampled: it has the score function's
        # half, which a plain k3 lacks (arXiv 2512.02556, equation 7). What a token leads to counts as an advantage does.
        ratio = torch.exp(new - self.logprobs)
        return ratio * own + (ratio - 1) * self.ahead
