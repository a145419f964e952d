"""Samplers: from a causal language model and explicit randomness to responses.

`loop` is the decoding loop of this package. `generate` is transformers' own, kept as the reference that the loop is checked
against: it draws the same tokens, reads each prompt as often as it is asked and never lets finished rows go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from alignbench import Decoded, Policy, Request, Sampler, functional
from alignbench.functional import draw
from alignbench_hf.architecture.trunk import read, select_rows
from alignbench_hf.config import GenerateConfig, LoopConfig
from alignbench_hf.prompts import positions, prefill

EVICT_BELOW = 0.75  # share of unfinished rows below which finished ones leave the batch


@torch.no_grad()
def loop(model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
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
def generate(model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
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


class Loop(Sampler):
    """`loop` as a component."""

    def __init__(self, config: LoopConfig, *, policy: Policy) -> None:
        pass

    def sample(self, model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
        return loop(model, output, request)


class Generate(Sampler):
    """`generate` as a component."""

    def __init__(self, config: GenerateConfig, *, policy: Policy) -> None:
        pass

    def sample(self, model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
        return generate(model, output, request)
