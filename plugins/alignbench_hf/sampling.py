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
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from alignbench import NonFiniteError, Sampling
from alignbench_hf.architecture.trunk import NO_LIMIT, read, select_rows
from alignbench_hf.prompts import positions, prefill

EVICT_BELOW = 0.75  # share of unfinished rows below which finished ones leave the batch
LOOK_EVERY = 8  # tokens, where the host waits to see which rows have ended


@dataclass(frozen=True)
class Request:
    """What a sampler is asked for. `prompt_ids` and `prompt_mask` are [B, P], left-padded.

    `chances` [B, max_new_tokens] within [0, 1): all of the randomness. Made for a whole rollout before it is cut into
    batches, it gives a row the same tokens whatever batch, or process, the row is decoded in. `eos` [E]: the tokens any of which
    ends a response. `share_prompts`: rows with one prompt may share its computation, and rows of at most `start_within` tokens
    that of their common start. `watch` is told what there is after each token. `compiled` is asked first by `loop`, and gives
    None where it cannot decode this."""

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
    compiled: Callable[[Any, nn.Module, Request], Decoded | None] | None = None


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
        """What was drawn for `rows`, of which those that have ended keep what they are. Nothing here has a host wait."""
        going = ~self.finished[rows]
        self.ids[rows, step] = torch.where(going, tokens, self.ids[rows, step])
        self.mask[rows, step] = going
        self.logprobs[rows, step] = logprobs.masked_fill(~going, 0.0)
        self.finished[rows] = ~going | (tokens[:, None] == eos).any(1)

    def still_going(self, rows: Tensor) -> int:
        """How many of `rows` have not ended: one wait of the host. Raises NonFiniteError where a drawn token's probability is NaN."""
        going, nan = torch.stack([(~self.finished[rows]).sum(), self.logprobs.isnan().sum()]).tolist()
        if nan:  # one logit that is not finite makes its whole row NaN
            raise NonFiniteError("the model's logits are NaN or infinite. Lower the learning rate.")
        return int(going)

    def first_going(self, rows: Tensor, count: int) -> Tensor:
        """Where in `rows` the first `count` stand that have not ended, in their order: without asking how many there are."""
        return self.finished[rows].long().argsort(stable=True)[:count]


class Sampler(Protocol):
    """Samples until an EOS or `max_new_tokens`. `output` maps the model's last hidden states to logits."""

    def __call__(self, model: Any, output: nn.Module, request: Request) -> Decoded: ...


@torch.no_grad()
def loop(model: Any, output: nn.Module, request: Request) -> Decoded:
    """One forward pass of the trunk a token; finished rows leave the batch."""
    if request.compiled and (decoded := request.compiled(model, output, request)):
        return decoded
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
        last = step + 1 == request.max_new_tokens
        going = found.still_going(alive) if last or looks(step, device) else len(alive)
        if last or not going:
            break
        attention = torch.cat([attention, attention.new_ones(len(alive), 1)], 1)
        position = position + 1
        if going < EVICT_BELOW * len(alive):
            keep = found.first_going(alive, going)
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


def begin(model: Any, output: nn.Module, request: Request) -> Begun:
    start = request.prompt_ids.shape[1] + request.max_new_tokens <= request.start_within
    hidden, attention, cache = prefill(
        model.base_model, request.prompt_ids, request.prompt_mask, share=request.share_prompts, start=start
    )
    return Begun(attention, cache, output(hidden.contiguous()))


def looks(step: int, device: torch.device) -> bool:
    """Whether the host looks after this step which rows have ended: on a GPU it waits for all that it has asked for so far."""
    return device.type == "cpu" or (step + 1) % LOOK_EVERY == 0


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
            found.put(step, every, tokens, logprobs, request.eos)
            if request.watch:
                request.watch(found)
            if step + 1 == request.max_new_tokens or looks(step, every.device):
                found.still_going(every)
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
