"""Samplers: from a causal language model and explicit randomness to responses.

`loop` is the decoding loop of this package. `generate` is transformers' own, kept as the reference that the loop is checked
against: it draws the same tokens, reads each prompt as often as it is asked and never lets finished rows go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from alignbench import Decoded, NonFiniteError, Policy, Request, Sampler, functional
from alignbench.functional import draw
from alignbench_hf.architecture.trunk import read, select_rows
from alignbench_hf.config import GenerateConfig
from alignbench_hf.prompts import positions, prefill

EVICT_BELOW = 0.75  # share of unfinished rows below which finished ones leave the batch
LOOK_EVERY = 8  # tokens, where the host waits to see which rows have ended


@torch.no_grad()
def loop(model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
    """One forward pass of the trunk a token; finished rows leave the batch."""
    rows, device, found = len(request.prompt_ids), request.prompt_ids.device, Decoded.empty(request)
    alive = torch.arange(rows, device=device)  # the rows that are still in the batch
    begun = begin(model, output, request)
    attention, cache, logits = begun.attention, begun.cache, begun.logits
    position = positions(attention)[:, -1:]
    for step in range(request.max_new_tokens):
        token, logprob = draw(
            logits.float() / request.sampling.temperature, request.sampling, request.chances[alive, step]
        )
        found.put(step, alive, token, logprob, request.eos)
        if request.watch:
            request.watch(found)
        last, going = step + 1 == request.max_new_tokens, len(alive)
        if last or looks(step, device):
            going = still_going(found, alive)
            if last or not functional.anywhere(going > 0):
                break
        attention = torch.cat([attention, attention.new_ones(len(alive), 1)], 1)
        position = position + 1
        if going < EVICT_BELOW * len(alive):
            keep = first_going(found, alive, max(going, 1))
            select_rows(cache, keep)
            alive, attention, position, token = alive[keep], attention[keep], position[keep], token[keep]
        hidden = read(model.base_model, token[:, None], attention, position, cache)[:, -1]
        logits = output(hidden.contiguous())
    return found


@dataclass(frozen=True)
class Begun:
    """Prompts that have been read: the attention [B, P] to the columns of the cache, and logits [B, V] of each first token."""

    attention: Tensor
    cache: DynamicCache
    logits: Tensor


def begin(model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Begun:
    start = request.prompt_ids.shape[1] + request.max_new_tokens <= request.start_within
    hidden, attention, cache = prefill(
        model.base_model, request.prompt_ids, request.prompt_mask, share=request.share_prompts, start=start
    )
    return Begun(attention, cache, output(hidden.contiguous()))


def looks(step: int, device: torch.device) -> bool:
    """Whether the host looks after this step which rows have ended: on a GPU it waits for all that it has asked for so far."""
    return device.type == "cpu" or (step + 1) % LOOK_EVERY == 0


def still_going(found: Decoded, rows: Tensor) -> int:
    """How many of `rows` have not ended: one wait of the host. Raises NonFiniteError where a drawn token's probability is NaN."""
    going, nan = torch.stack([(~found.finished[rows]).sum(), found.logprobs.isnan().sum()]).tolist()
    if nan:
        raise NonFiniteError("the model's logits are NaN or infinite. Lower the learning rate.")
    return int(going)


def first_going(found: Decoded, rows: Tensor, count: int) -> Tensor:
    """Where in `rows` the first `count` stand that have not ended, in their order: without asking how many there are."""
    return found.finished[rows].long().argsort(stable=True)[:count]


@torch.no_grad()
def generate(model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
    """transformers' `generate`, told at each step which token its own logits and the row's chance lead to."""
    found, width = Decoded.empty(request), request.prompt_ids.shape[1]
    every = torch.arange(len(request.prompt_ids), device=request.prompt_ids.device)

    class Draw(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            step = input_ids.shape[1] - width
            logits = scores.float() / request.sampling.temperature
            tokens, logprobs = draw(logits, request.sampling, request.chances[:, step])
            found.put(step, every, tokens, logprobs, request.eos)
            if request.watch:
                request.watch(found)
            if step + 1 == request.max_new_tokens or looks(step, every.device):
                still_going(found, every)
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


class Generate(Sampler):
    """`generate` as a component."""

    def __init__(self, config: GenerateConfig, *, policy: Policy) -> None:
        pass

    def sample(self, model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
        return generate(model, output, request)
