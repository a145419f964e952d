"""The loss of supervised fine-tuning as it is written down: what every step of the algorithm is held to. No code of sft.py."""

from __future__ import annotations

from torch import Tensor

from alignbench import ResponseTerms


def loss(terms: ResponseTerms) -> Tensor:
    """-log pi of a demonstrated token, a mean over all response tokens of the batch (arXiv 2203.02155, section 3.5)."""
    return -terms.logprobs[terms.mask].mean()
