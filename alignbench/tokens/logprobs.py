"""Log-probabilities of given tokens from hidden states, without ever holding the logits of all positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from alignbench.records import TokenScores


def most_logits(device: str) -> int:
    """How many logits `token_logprobs` holds at a time unless told: on a CPU no more than its caches are good for, and than
    the C library keeps at hand (beyond 32 MiB glibc has each tensor's pages made anew, which takes longer than the
    mathematics)."""
    return 2**22 if device == "cpu" else 2**24


def token_logprobs(
    hidden: Tensor,
    head: Module,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    greedy: bool = False,
    max_logits: int | None = None,
) -> TokenScores:
    """Log-probabilities of `targets` [...] under head(hidden [..., H]) / temperature, float32; the entropy and whether no
    token is more likely if asked.

    At most `max_logits` logits are held at a time (None: `most_logits`). Where there are more, they are made in chunks of
    positions, and for a head that is trained made again in the backward pass; for one that is not, the gradient by `hidden`
    is made beside them and they are made once. The entropy carries no gradient."""
    chunk = max((max_logits or most_logits(hidden.device.type)) // head.get_parameter("weight").shape[0], 1)
    flat_hidden, flat_targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    learns = torch.is_grad_enabled() and hidden.requires_grad
    frozen = not any(parameter.requires_grad for parameter in head.parameters())
    logprobs, entropies, likeliest = [], [], []
    for states, wanted in zip(flat_hidden.split(chunk), flat_targets.split(chunk), strict=True):
        logits = None
        if learns and frozen:
            logprobs.append(_FrozenHead.apply(states, wanted, head, temperature))  # type: ignore[no-untyped-call]
        elif learns and len(flat_targets) > chunk:
            block = lambda states, wanted: _chosen(_logits(states, head, temperature), wanted)  # noqa: E731
            logprobs.append(torch.utils.checkpoint.checkpoint(block, states, wanted, use_reentrant=False))
        else:
            logits = _logits(states, head, temperature)
            logprobs.append(_chosen(logits, wanted))
        if entropy or greedy:
            with torch.no_grad():
                log_p = torch.log_softmax(_logits(states, head, temperature) if logits is None else logits, -1)
                entropies.append(-(log_p.exp() * log_p).sum(-1))
                likeliest.append(log_p.gather(-1, wanted[:, None]).squeeze(-1) == log_p.amax(-1))
    return TokenScores(
        torch.cat(logprobs).reshape(targets.shape),
        torch.cat(entropies).reshape(targets.shape) if entropy else None,
        torch.cat(likeliest).reshape(targets.shape) if greedy else None,
    )


def token_logprobs_and_kl(
    hidden: Tensor,
    head: Module,
    reference: Tensor,
    reference_head: Callable[[Tensor], Tensor],
    targets: Tensor,
    *,
    temperature: float = 1.0,
    max_logits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Two of [...], float32: log-probabilities as of `token_logprobs`, and KL(p_ref || p) of the whole distributions that the states
    `hidden` and `reference` [..., H] give, in nats. Differentiable by `hidden`.

    At most `max_logits` logits of both together are held at a time; with gradients they are made again in the backward pass."""
    chunk = max((max_logits or most_logits(hidden.device.type)) // (2 * head.get_parameter("weight").shape[0]), 1)
    flat = hidden.reshape(-1, hidden.shape[-1]), reference.reshape(-1, reference.shape[-1]), targets.reshape(-1)

    def block(states: Tensor, known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            log_ref = torch.log_softmax(_logits(known, reference_head, temperature), -1)
        log_p = torch.log_softmax(_logits(states, head, temperature), -1)
        spent = torch.where(log_ref > -torch.inf, log_ref.exp() * (log_ref - log_p), 0.0).sum(-1)
        return log_p.gather(-1, wanted[:, None]).squeeze(-1), spent

    found = []
    for part in zip(*(each.split(chunk) for each in flat), strict=True):
        if torch.is_grad_enabled() and hidden.requires_grad:
            found.append(torch.utils.checkpoint.checkpoint(block, *part, use_reentrant=False))
        else:
            found.append(block(*part))
    logprobs, kl = (torch.cat(parts).reshape(targets.shape) for parts in zip(*found, strict=True))
    return logprobs, kl


def _logits(states: Tensor, head: Callable[[Tensor], Tensor], temperature: float) -> Tensor:
    logits = head(states).float()
    return logits if temperature == 1.0 else logits / temperature


def _chosen(logits: Tensor, wanted: Tensor) -> Tensor:
    """Not by `logsumexp`, which is many times as slow on a CPU."""
    return -cross_entropy(logits, wanted, reduction="none")


class _FrozenHead(torch.autograd.Function):
    """log p [N], and with it its gradient by the states, (w_wanted - sum_v p_v w_v) / temperature, from the same logits: as
    large as the states, where the logits are as large as the vocabulary (as in Hsu et al., arXiv 2410.10989)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, wanted: Tensor, head: Module, temperature: float) -> Tensor:
        with torch.enable_grad():  # through the head, whatever it does to its product
            leaf = states.detach().requires_grad_()
            made = head(leaf)
        logits = made.detach().float()
        logits = logits if temperature == 1.0 else logits / temperature
        every = torch.arange(len(wanted), device=wanted.device)
        log_p = torch.log_softmax(logits, -1)
        logprobs = log_p[every, wanted]
        pull = log_p.exp_()
        pull[every, wanted] -= 1.0
        (slope,) = torch.autograd.grad(made, leaf, pull.to(made.dtype))
        ctx.save_for_backward(slope.mul_(-1.0 / temperature))
        return logprobs

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (slope * upstream[0][:, None]).to(slope.dtype), None, None, None
