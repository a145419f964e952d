"""Samplers: from a causal language model and explicit randomness to responses.

`loop` is the decoding loop of this package. `generate` is transformers' own, kept as the reference that the loop is checked
against: it draws the same tokens, reads each prompt as often as it is asked and never lets finished rows go. An engine of
another kind takes a `Request` and gives a `Decoded`, as these do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from alignbench import NonFiniteError, Sampling, functional
from alignbench_hf.architecture.trunk import NO_LIMIT, read, select_rows
from alignbench_hf.prompts import positions, prefill

EVICT_BELOW = 0.75  # share of unfinished rows below which finished ones leave the batch


@dataclass(frozen=True)
class Request:
    """What a sampler is asked for. `prompt_ids` and `prompt_mask` are [B, P], left-padded.

    `chances` [B, max_new_tokens] within [0, 1): all of the randomness. Made for a whole rollout before it is cut into
    batches, it gives a row the same tokens whatever batch, or process, the row is decoded in. `eos` [E]: the tokens any of which
    ends a response. `share_prompts`: rows with one prompt may share its computation, and rows of at most `start_within` tokens
    that of their common start. `watch` is told what there is after each token."""

    prompt_ids: Tensor
    prompt_mask: Tensor
    sampling: Sampling
    max_new_tokens: int
    eos: Tensor
    pad: int
    chances: Tensor
    share_prompts: bool = False
    start_within: int = NO_LIMIT
    watch: Callable[[Decoded], None] | None = None


@dataclass(frozen=True)
class Decoded:
    """Sampled tokens [B, R] (padded), their mask and log-probabilities, and whether the row ended with an EOS [B]."""

    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    finished: Tensor

    @classmethod
    def empty(cls, request: Request) -> Decoded:
        shape, device = (len(request.prompt_ids), request.max_new_tokens), request.prompt_ids.device
        return cls(
            torch.full(shape, request.pad, dtype=torch.long, device=device),
            torch.zeros(shape, dtype=torch.bool, device=device),
            torch.zeros(shape, device=device),
            torch.zeros(shape[0], dtype=torch.bool, device=device),
        )

    def put(self, step: int, rows: Tensor, tokens: Tensor, logprobs: Tensor, eos: Tensor) -> None:
        self.ids[rows, step], self.mask[rows, step], self.logprobs[rows, step] = tokens, True, logprobs
        self.finished[rows] = (tokens[:, None] == eos).any(1)


class Sampler(Protocol):
    """Samples until an EOS or `max_new_tokens`. `output` maps the model's last hidden states to logits."""

    def __call__(self, model: Any, output: nn.Module, request: Request) -> Decoded: ...


@torch.no_grad()
def loop(model: Any, output: nn.Module, request: Request) -> Decoded:
    """One forward pass of the trunk a token; finished rows leave the batch."""
    rows, device, found = len(request.prompt_ids), request.prompt_ids.device, Decoded.empty(request)
    alive = torch.arange(rows, device=device)  # the rows that are still in the batch
    start = request.prompt_ids.shape[1] + request.max_new_tokens <= request.start_within
    hidden, attention, cache = prefill(
        model.base_model, request.prompt_ids, request.prompt_mask, share=request.share_prompts, start=start
    )
    position = positions(attention)[:, -1:]
    logits = output(hidden.contiguous())
    for step in range(request.max_new_tokens):
        token, logprob = draw(
            logits.float() / request.sampling.temperature, request.sampling, request.chances[alive, step]
        )
        going = ~found.finished[alive]
        found.put(step, alive[going], token[going], logprob[going], request.eos)
        if request.watch:
            request.watch(found)
        going = ~found.finished[alive]
        if step + 1 == request.max_new_tokens or not functional.anywhere(bool(going.any())):
            break
        attention = torch.cat([attention, attention.new_ones(len(alive), 1)], 1)
        position = position + 1
        if int(going.sum()) < EVICT_BELOW * len(alive):
            keep = going.nonzero().squeeze(1) if bool(going.any()) else going.new_zeros(1, dtype=torch.long)
            select_rows(cache, keep)
            alive, attention, position, token = alive[keep], attention[keep], position[keep], token[keep]
        hidden = read(model.base_model, token[:, None], attention, position, cache)[:, -1]
        logits = output(hidden.contiguous())
    return found


@torch.no_grad()
def generate(model: Any, output: nn.Module, request: Request) -> Decoded:
    """transformers' `generate`, told at each step which token its own logits and the row's chance lead to."""
    found, width = Decoded.empty(request), request.prompt_ids.shape[1]
    every = torch.arange(len(request.prompt_ids), device=request.prompt_ids.device)

    class Draw(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            step = input_ids.shape[1] - width
            logits = scores.float() / request.sampling.temperature
            tokens, logprobs = draw(logits, request.sampling, request.chances[:, step])
            going = ~found.finished
            found.put(step, every[going], tokens[going], logprobs[going], request.eos)
            if request.watch:
                request.watch(found)
            return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)

    suppressed = getattr(output, "suppressed", torch.zeros(0))
    plain = GenerationConfig(
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        eos_token_id=request.eos.tolist(),
        pad_token_id=request.pad,
        suppress_tokens=suppressed.tolist() or None,
    )
    of_model, model.generation_config = model.generation_config, plain  # chat models bring penalties and temperatures
    try:
        model.generate(
            input_ids=request.prompt_ids,
            attention_mask=request.prompt_mask.long(),
            logits_processor=LogitsProcessorList([Draw()]),
        )
    finally:
        model.generation_config = of_model
    return found


SAMPLERS: dict[str, Sampler] = {"loop": loop, "generate": generate}


def draw(logits: Tensor, sampling: Sampling, chances: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row from [B, V] logits, and its log-probability under the distribution before top-k and top-p.

    By inversion: the first token at which the cumulative probability exceeds the row's chance in [0, 1). Summed in float64:
    over a vocabulary of 50,000 a float32 sum would give the last tokens the wrong share."""
    logprobs = torch.log_softmax(logits, -1)
    if bool(torch.isnan(logprobs[:, 0]).any()):  # one logit that is not finite makes its whole row NaN
        raise NonFiniteError("the model's logits are NaN or infinite. Lower the learning rate.")
    kept = logprobs
    if sampling.top_k > 0:
        smallest = kept.topk(min(sampling.top_k, kept.shape[-1]), -1).values[:, -1:]
        kept = kept.masked_fill(kept < smallest, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, index = kept.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        kept = kept.masked_fill((before >= sampling.top_p).gather(-1, index.argsort(-1)), -torch.inf)
    reached = kept.exp().cumsum(-1, dtype=torch.float64)
    below = chances.double()[:, None] * reached[:, -1:]
    token = torch.searchsorted(reached, below, right=True).clamp(max=logits.shape[-1] - 1)
    return token.squeeze(1), logprobs.gather(-1, token).squeeze(1)
