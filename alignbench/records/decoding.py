"""What a sampler is asked for, and what it gives."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignbench.records import POLICY, Sampling

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Request:
    """What a sampler is asked for. `prompt_ids` and `prompt_mask` are [B, P], left-padded.

    `chances` [B, max_new_tokens] within [0, 1): all of the randomness. Made for a whole rollout before it is cut into
    batches, it gives a row the same tokens whatever batch, or process, the row is decoded in. `eos` [E]: the tokens any of which
    ends a response. `share_prompts`: rows with one prompt may share its computation, and rows of at most `start_within` tokens
    that of their common start. `watch` is told what there is after each token. `role`: who is sampled, POLICY or REFERENCE."""

    prompt_ids: Tensor
    prompt_mask: Tensor
    sampling: Sampling
    max_new_tokens: int
    eos: Tensor
    pad: int
    chances: Tensor
    share_prompts: bool = False
    start_within: int = sys.maxsize
    watch: Callable[[Decoded], None] | None = None
    role: str = POLICY


@dataclass(frozen=True)
class Decoded:
    """Sampled tokens [B, R] (padded), their mask and log-probabilities, and whether the row ended with an EOS [B]."""

    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    finished: Tensor

    @classmethod
    def empty(cls, request: Request) -> Decoded:
        """Of no token yet, to be filled by `put`."""
        import torch

        shape, device = (len(request.prompt_ids), request.max_new_tokens), request.prompt_ids.device
        return cls(
            torch.full(shape, request.pad, dtype=torch.long, device=device),
            torch.zeros(shape, dtype=torch.bool, device=device),
            torch.zeros(shape, device=device),
            torch.zeros(shape[0], dtype=torch.bool, device=device),
        )

    def put(self, step: int, rows: Tensor, tokens: Tensor, logprobs: Tensor, eos: Tensor) -> None:
        """The tokens of these rows at this step; those that got one of `eos` are finished."""
        self.ids[rows, step], self.mask[rows, step], self.logprobs[rows, step] = tokens, True, logprobs
        self.finished[rows] = (tokens[:, None] == eos).any(1)
