"""Truncated importance sampling: what was sampled by somebody else than the policy as it stands is weighed as if by the policy.

An engine computes in another order and often in fewer bits than a training pass, so that its tokens are drawn from a distribution
near the policy's: E_sampler[w f] = E_policy[f] with w = pi / pi_sampler. Truncated, min(w, C), it has a bounded variance and leaves
out only what the policy gives beyond C times the sampler's share (Ionides 2008, "Truncated importance sampling"; for engines
https://fengyao.notion.site/off-policy-rl).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignbench.errors import NonFiniteError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from alignbench.optimizer_config import CorrectedConfig
    from alignbench.records import Rollout


@dataclass(frozen=True)
class Correction:
    """`weights` [B, R], without gradient, exactly 1 where nothing is corrected and outside the response: of what each token adds to a
    loss. `figures`: how far the sampler was from the policy, to be logged; empty where it was the policy itself."""

    weights: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)


def truncated_weights(logprobs: Tensor, sampled: Tensor, mask: Tensor, *, level: str, clip: float) -> Tensor:
    """[B, R]: min(pi / pi_sampler, clip) of each token, or of the whole response at each of its tokens (`level` token or sequence;
    none: 1 everywhere); 1 outside the mask."""
    import torch

    if level == "none":
        return torch.ones_like(logprobs)
    kept = mask.bool()
    apart = torch.where(kept, logprobs - sampled, torch.zeros_like(logprobs)).double()
    if level == "sequence":
        apart = apart.sum(1, keepdim=True).expand_as(apart)
    weights = apart.exp().clamp(max=clip)
    return torch.where(kept, weights, torch.ones_like(weights)).to(logprobs.dtype)


def correction(rollout: Rollout, logprobs: Tensor, config: CorrectedConfig) -> Correction:
    """For a loss over a rollout. `logprobs` [B, R]: the policy's own before the first step, at the rollout's temperature.

    Raises UserError where the sampler is further away than config.sampler_gap_limit: it then samples another model."""
    import torch

    if not rollout.off_policy:
        return Correction(torch.ones_like(logprobs))
    mask = rollout.samples.sequences.response_mask.bool()
    apart = torch.where(mask, logprobs - rollout.logprobs, torch.zeros_like(logprobs)).double()
    tokens = mask.sum().clamp(min=1)
    gap = float(apart.abs().sum() / tokens)
    if not math.isfinite(gap):
        raise NonFiniteError(
            "the policy's or the sampler's log-probabilities are NaN or infinite. Lower the learning rate."
        )
    if 0 < config.sampler_gap_limit < gap:
        raise UserError(
            f"The sampler's log-probabilities are {gap:.3g} nats a token away from the policy's on average, above "
            f"algo.sampler_gap_limit={config.sampler_gap_limit:g}: it samples another model than is trained. Check what the engine "
            "serves and in which type (with algo.overlap=1: lower the learning rate), or raise the limit."
        )
    weights = truncated_weights(logprobs, rollout.logprobs, mask, level=config.importance, clip=config.importance_clip)
    units = mask if config.importance != "sequence" else mask.any(1)
    cut = (weights >= config.importance_clip) & mask & (config.importance != "none")
    share = cut.sum() if config.importance != "sequence" else cut.any(1).sum()
    return Correction(
        weights,
        {
            "sampler_gap": gap,
            "sampler_gap_max": float(apart.abs().max()),
            # k3 on the sampler's own samples: never negative, its mean is KL(pi_sampler || pi).
            "sampler_kl": float((torch.expm1(apart) - apart).sum(1).mean()),
            "importance_weight": float(weights.double()[mask].mean()) if bool(mask.any()) else 1.0,
            "importance_cut": float(share / units.sum().clamp(min=1)),
        },
    )
