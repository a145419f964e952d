"""Scores of responses, held to the contract of whoever gives them."""

from __future__ import annotations

from torch import Tensor

from alignbench import functional
from alignbench.contracts import RewardSource
from alignbench.errors import UserError
from alignbench.records import Samples


def checked_scores(reward: RewardSource, samples: Samples) -> Tensor:
    """A reward source's scores, held to its contract: one finite float32 number per response, without gradient."""
    scores = reward.score(samples)
    if scores.shape != (len(samples),):
        raise UserError(f"The reward source gave scores of shape {tuple(scores.shape)} for {len(samples)} responses.")
    return functional.require_finite("the reward", scores.detach().float(), hint="Check the reward source.")
