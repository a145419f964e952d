"""The loss of rejection sampling as the papers write it: what every step of the algorithm is held to. No code of rejection.py."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import RolloutTerms
from alignbench_selection.config import RejectionSamplingConfig


def loss(config: RejectionSamplingConfig, terms: RolloutTerms) -> Tensor:
    """-log pi(y|x) of the response with the highest score of each prompt's n, the first of equals, at temperature 1, a mean over
    prompts (arXiv 2304.06767, algorithm 1)."""
    log_pi = terms.untempered.logprobs.sum(1)
    losses = []
    for first in range(0, len(terms.scores), config.samples_per_prompt):
        group = range(first, first + config.samples_per_prompt)
        best = max(group, key=lambda row: (float(terms.scores[row]), -row))
        losses.append(-log_pi[best])
    return torch.stack(losses).mean()
