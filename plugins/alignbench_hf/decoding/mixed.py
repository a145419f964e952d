"""The loop for a mixture: two roles read every token, and each token is drawn by the logits of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from alignbench import REFERENCE, Decoded, Request, functional
from alignbench.functional import draw
from alignbench_hf.architecture.trunk import read
from alignbench_hf.decoding.samplers import begin, looks, still_going
from alignbench_hf.prompts import positions

Output = Callable[[Tensor], Tensor]


class Reader:
    """One role, its cache, and its logits [B, V] of the next token. `use` gives the role's model, which may be the other role's too with
    other adapters: it is asked anew for every token."""

    def __init__(self, use: Callable[[str], Any], output: Callable[[Any], Output], role: str, request: Request) -> None:
        self._use, self._output, self._role = use, output, role
        begun = begin(use(role), output(use(role)), request)
        self._attention, self._cache, self.logits = begun.attention, begun.cache, begun.logits.float()
        self._position = positions(begun.attention)[:, -1:]

    def read(self, token: Tensor) -> None:
        model, self._position = self._use(self._role), self._position + 1
        self._attention = torch.cat([self._attention, self._attention.new_ones(len(token), 1)], 1)
        hidden = read(model.base_model, token[:, None], self._attention, self._position, self._cache)[:, -1]
        self.logits = self._output(model)(hidden.contiguous()).float()


@torch.no_grad()
def mixed(use: Callable[[str], Any], output: Callable[[Any], Output], request: Request) -> Decoded:
    """Tokens in proportion to pi^(1 - s) pi_ref^s, s the reference's share: what weighs the logits so. Two passes a token; rows that
    have ended stay in the batch."""
    share = request.sampling.reference_share
    own, reference = (Reader(use, output, role, request) for role in (request.role, REFERENCE))
    found, every = Decoded.empty(request), torch.arange(len(request.prompt_ids), device=request.prompt_ids.device)
    for step in range(request.max_new_tokens):
        logits = (1 - share) * own.logits + share * reference.logits
        token, logprob = draw(logits / request.sampling.temperature, request.sampling, request.chances[:, step])
        found.put(step, every, token, logprob, request.eos)
        if request.watch:
            request.watch(found)
        last = step + 1 == request.max_new_tokens
        if (last or looks(step, every.device)) and (not functional.anywhere(still_going(found, every) > 0) or last):
            break
        own.read(token)
        reference.read(token)
    return found
