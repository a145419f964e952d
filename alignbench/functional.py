"""Mathematics that several algorithms share, each piece once. Part of the public door; imports torch.

Masks are [B, R] bool or {0, 1}, True at response tokens. Log-probabilities and KL are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from alignbench.errors import NonFiniteError
from alignbench.records import PreferencePair, Ranking


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum over the masked elements. `where`, not a product: what lies outside the mask may be NaN or infinite."""
    kept = torch.where(mask.bool(), values, torch.zeros_like(values))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean over the masked elements; 0 where the mask is empty."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(values, mask, dim) / count.clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Scales to variance 1 over the mask (biased variance), and to mean 0 unless `shift_mean` is False; 0 outside."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    white = (values - mean) * torch.rsqrt(variance + eps)
    if not shift_mean:
        white = white + mean
    return torch.where(mask.bool(), white, torch.zeros_like(white))


def token_logprobs(
    hidden: Tensor,
    head: torch.nn.Module,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int = 1024,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of `targets` [...] under head(hidden [..., H]) / temperature, float32, and the entropy if asked.

    Logits are made for `chunk` positions at a time and recomputed in the backward pass, so that [positions, vocabulary]
    in float32 is never held; the entropy carries no gradient."""
    flat_hidden, flat_targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)

    def block(states: Tensor, wanted: Tensor) -> Tensor:
        logits = head(states).float() / temperature
        return logits.gather(-1, wanted[:, None]).squeeze(-1) - torch.logsumexp(logits, -1)

    logprobs, entropies = [], []
    several = flat_targets.numel() > chunk
    for states, wanted in zip(flat_hidden.split(chunk), flat_targets.split(chunk), strict=True):
        if several and torch.is_grad_enabled() and states.requires_grad:
            logprobs.append(torch.utils.checkpoint.checkpoint(block, states, wanted, use_reentrant=False))
        else:
            logprobs.append(block(states, wanted))
        if entropy:
            with torch.no_grad():
                log_p = torch.log_softmax(head(states).float() / temperature, -1)
                entropies.append(-(log_p.exp() * log_p).sum(-1))
    return (
        torch.cat(logprobs).reshape(targets.shape),
        torch.cat(entropies).reshape(targets.shape) if entropy else None,
    )


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log pi - log pi_ref of the sampled token: unbiased, may be negative (Schulman 2020, "Approximating KL divergence")."""
    return logprobs - ref_logprobs


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio: biased as a value, low variance."""
    return 0.5 * (logprobs - ref_logprobs) ** 2


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1: unbiased as a value and never negative; its gradient as a loss is not that of the KL."""
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """KL in the unit used everywhere: nats per response, [B], the sum over response tokens of log pi - log pi_ref."""
    return masked_sum(kl_k1(logprobs, ref_logprobs), mask, dim=1)


def learning_rate_at(update: int, *, updates: int, schedule: str, warmup: int) -> float:
    """The factor on the learning rate at `update` (from 0): linear warm-up from 0, then constant, linear or cosine to 0."""
    if update < warmup:
        return (update + 1) / (warmup + 1)
    progress = (update - warmup) / max(updates - warmup, 1)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return max(1.0 - progress, 0.0)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    raise ValueError(f"lr_schedule is constant, linear or cosine, not {schedule!r}")


def require_finite(name: str, value: Tensor, *, hint: str = "") -> Tensor:
    """Returns `value`, or raises NonFiniteError that counts and names what is not finite."""
    if not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).sum())
        raise NonFiniteError(f"{name} is NaN or infinite ({bad} of {value.numel()} values). {hint}".strip())
    return value


def clip_and_step(optimizer: torch.optim.Optimizer, groups: Sequence[Sequence[Tensor]], max_grad_norm: float) -> list[float]:
    """Clips each group's gradient norm on its own, steps, and returns the norms before clipping.

    Raises NonFiniteError before stepping, so that the weights stay those of the last good update."""
    norms = []
    for group in groups:
        parameters = [p for p in group if p.grad is not None]
        limit = max_grad_norm if max_grad_norm > 0 else math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        require_finite("the gradient norm", norm, hint="Lower the learning rate.")
        norms.append(float(norm))
    optimizer.step()
    return norms


def micro_batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Row indices in pieces of at most `size`."""
    yield from rows.split(size)


def ranking_to_pairs(ranking: Ranking) -> list[PreferencePair]:
    """All pairs of a ranking with different ranks (ties and identical responses give none), best first."""
    order = sorted(range(len(ranking.ranks)), key=lambda k: ranking.ranks[k])
    ended = ranking.finished or (True,) * len(order)
    return [
        PreferencePair(ranking.prompt, ranking.responses[a], ranking.responses[b], finished=(ended[a], ended[b]))
        for i, a in enumerate(order)
        for b in order[i + 1 :]
        if ranking.ranks[a] != ranking.ranks[b] and ranking.responses[a] != ranking.responses[b]
    ]
