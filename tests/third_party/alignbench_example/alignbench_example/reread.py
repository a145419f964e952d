"""A sampler without a cache: the whole text is read again for every token. Slow, and short enough to be understood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alignbench import Decoded, Policy, Request, Sampler, functional
from alignbench_example.config import RereadConfig


class Reread(Sampler):
    def __init__(self, config: RereadConfig, *, policy: Policy) -> None:
        pass

    @torch.no_grad()
    def sample(self, model: Any, output: Callable[[torch.Tensor], torch.Tensor], request: Request) -> Decoded:
        found, ids, mask = Decoded.empty(request), request.prompt_ids, request.prompt_mask.bool()
        rows = torch.arange(len(ids), device=ids.device)
        for step in range(request.max_new_tokens):
            places = (mask.long().cumsum(1) - 1).clamp(min=0)
            states = model.base_model(input_ids=ids, attention_mask=mask.long(), position_ids=places).last_hidden_state
            logits = output(states[:, -1]).float() / request.sampling.temperature
            tokens, logprobs = functional.draw(logits, request.sampling, request.chances[:, step])
            going = ~found.finished
            found.put(step, rows[going], tokens[going], logprobs[going], request.eos)
            if request.watch:
                request.watch(found)
            if not functional.anywhere(not bool(found.finished.all())):  # processes that share a model keep in step
                break
            ids, mask = torch.cat([ids, tokens[:, None]], 1), torch.cat([mask, going[:, None]], 1)
        return found
