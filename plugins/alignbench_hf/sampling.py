"""The decoding loop: samples from a causal language model with explicit randomness.

transformers' `generate` draws from torch's global generator and does not return the log-probabilities of what it
drew at the sampling temperature; both matter here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from alignbench import NonFiniteError, Sampling

EVICT_BELOW = 0.75  # share of unfinished rows below which finished ones leave the batch


@dataclass(frozen=True)
class Decoded:
    """Sampled tokens [B, R] (padded), their mask and log-probabilities, and whether the row ended with EOS [B]."""

    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    finished: Tensor


@torch.no_grad()
def decode(
    trunk: Callable[..., object],
    output: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    sampling: Sampling,
    *,
    max_new_tokens: int,
    eos: int,
    pad: int,
    chances: Tensor,
) -> Decoded:
    """Samples until EOS or `max_new_tokens`. `prompt_ids` and `prompt_mask` are [B, P], left-padded.

    `chances` [B, max_new_tokens] within [0, 1): all of the randomness. Made for a whole rollout before it is cut into
    batches, it gives a row the same tokens whatever batch, or process, the row is decoded in."""
    rows = prompt_ids.shape[0]
    device = prompt_ids.device
    ids = torch.full((rows, max_new_tokens), pad, dtype=torch.long, device=device)
    mask = torch.zeros((rows, max_new_tokens), dtype=torch.bool, device=device)
    logprobs = torch.zeros((rows, max_new_tokens), device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)

    alive = torch.arange(rows, device=device)  # the rows that are still in the batch
    attention = prompt_mask.long()
    position = (attention.cumsum(1) - 1).clamp(min=0)
    step_ids, cache = prompt_ids, DynamicCache()
    for step in range(max_new_tokens):
        states = trunk(
            input_ids=step_ids, attention_mask=attention, position_ids=position, past_key_values=cache, use_cache=True
        ).last_hidden_state  # type: ignore[attr-defined]
        logits = output(states[:, -1].contiguous()).float() / sampling.temperature
        token, logprob = draw(logits, sampling, chances[alive, step])
        going = ~finished[alive]
        here = alive[going]
        ids[here, step], mask[here, step], logprobs[here, step] = token[going], True, logprob[going]
        finished[here] = token[going] == eos
        going = ~finished[alive]
        if not bool(going.any()):
            break
        attention = torch.cat([attention, attention.new_ones(len(alive), 1)], 1)
        position = position[:, -1:] + 1
        if int(going.sum()) < EVICT_BELOW * len(alive):
            keep = going.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            alive, attention, position, token = alive[keep], attention[keep], position[keep], token[keep]
        step_ids = token[:, None]
    return Decoded(ids, mask, logprobs, finished)


def draw(logits: Tensor, sampling: Sampling, chances: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row from [B, V] logits, and its log-probability under the distribution before top-k and top-p.

    By inversion: the first token at which the cumulative probability exceeds the row's chance in [0, 1). In float64: over
    a vocabulary of 50,000 a float32 sum would give the last tokens the wrong share."""
    logprobs = torch.log_softmax(logits, -1)
    if bool(torch.isnan(logprobs).any()):  # multinomial would end in a device-side assertion
        raise NonFiniteError("the model's logits are NaN or infinite. Lower the learning rate.")
    kept = logprobs
    if sampling.top_k > 0:
        smallest = kept.topk(min(sampling.top_k, kept.shape[-1]), -1).values[:, -1:]
        kept = kept.masked_fill(kept < smallest, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, index = kept.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        kept = kept.masked_fill((before >= sampling.top_p).gather(-1, index.argsort(-1)), -torch.inf)
    reached = kept.double().softmax(-1).cumsum(-1)
    below = chances.double()[:, None] * reached[:, -1:]
    token = torch.searchsorted(reached, below, right=True).clamp(max=logits.shape[-1] - 1)
    return token.squeeze(1), logprobs.gather(-1, token).squeeze(1)
