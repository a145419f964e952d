"""Scores of responses, held to the contract of whoever gives them."""

from __future__ import annotations

from torch import Tensor

from alignbench import functional
from alignbench.contracts import RewardSource
from alignbench.errors import UserError
from alignbench.records import RewardParts, Rollout, Samples, ScoredRollout

HINT = "Check the reward source."


def checked_scores(reward: RewardSource, samples: Samples) -> Tensor:
    """A reward source's scores, held to its contract: one finite float32 number per response, without gradient."""
    scores = reward.score(samples)
    if scores.shape != (len(samples),):
        raise UserError(f"The reward source gave scores of shape {tuple(scores.shape)} for {len(samples)} responses.")
    return functional.require_finite("the reward", scores.detach().float(), hint=HINT)


def scored(reward: RewardSource, rollout: Rollout) -> ScoredRollout:
    """A rollout with its scores, and with their parts where the reward source gives them."""
    parts = checked_parts(reward, rollout.samples)
    if parts is None:
        return ScoredRollout(rollout, checked_scores(reward, rollout.samples))
    return ScoredRollout(rollout, parts.total(), parts)


def checked_parts(reward: RewardSource, samples: Samples) -> RewardParts | None:
    """The parts of a reward source's scores, held to its contract as the scores are; None where it gives none."""
    parts = reward.score_parts(samples)
    if parts is None:
        return None
    names, shape = parts.names, tuple(parts.values.shape)
    if not names or len(set(names)) < len(names) or len(parts.weights) != len(names):
        raise UserError(
            f"The reward source gave {len(parts.weights)} weights for the parts {', '.join(names) or '(none)'}: each part "
            "has a name of its own and a weight."
        )
    if shape != (len(samples), len(names)):
        raise UserError(
            f"The reward source gave parts of shape {shape} for {len(samples)} responses and {len(names)} parts."
        )
    values = functional.require_finite("a part of the reward", parts.values.detach().float(), hint=HINT)
    return RewardParts(names, parts.weights, values)
