"""One token from its logits, by randomness that is given."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench.errors import NonFiniteError
from alignbench.records import Sampling


def draw(logits: Tensor, sampling: Sampling, chances: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row from [B, V] logits, and its log-probability under the distribution before top-k and top-p.

    By inversion: the first token at which the cumulative probability exceeds the row's chance in [0, 1). Summed in float64:
    over a vocabulary of 50,000 a float32 sum would give the last tokens the wrong share. Raises NonFiniteError for logits that
    are not finite; on a GPU, where asking would have the host wait, such a row's log-probability is NaN."""
    logprobs = torch.log_softmax(logits, -1)
    if logits.device.type == "cpu" and bool(
        torch.isnan(logprobs[:, 0]).any()
    ):  # one logit that is not finite makes its whole row NaN
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
