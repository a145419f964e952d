"""Scores of responses, held to the contract of whoever gives them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alignbench import functional
from alignbench.contracts import Annotator, RewardSource
from alignbench.errors import UserError
from alignbench.records import RewardParts, Rollout, Samples, ScoredRollout
from alignbench.selection import digest

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


class AnnotatorRanks(RewardSource):
    """An annotator in the place of a reward source: of each `together` neighbours, which answer one prompt, minus the ranks that it
    gives them. It is shown equal responses once: they have one rank, and no more chances than others.

    `annotator` makes it anew for each batch, by a name that depends on the responses alone: what it draws is then the same in a run that
    goes on after a pause, and whoever ranked before."""

    def __init__(self, annotator: Callable[[str], Annotator], together: int) -> None:
        self._annotator, self._together = annotator, together

    def score(self, samples: Samples) -> Tensor:
        answers = list(zip(samples.texts, samples.finished.tolist(), strict=True))
        groups = [answers[start : start + self._together] for start in range(0, len(answers), self._together)]
        different = [list(dict.fromkeys(group)) for group in groups]
        asked = [place for place, shown in enumerate(different) if len(shown) > 1]
        prompts = [samples.prompts[place * self._together] for place in asked]
        texts = [[text for text, _ in different[place]] for place in asked]
        finished = [[ended for _, ended in different[place]] for place in asked]
        annotator = self._annotator(digest([prompt.id for prompt in samples.prompts], answers))
        # Every process asks, as for rankings: an annotator that pays for its answers asks once for all of them itself.
        found = annotator.rank_all(prompts, texts, finished=finished) if asked else []
        ranks = dict(zip(asked, found, strict=True))
        scores = []
        for place, (group, shown) in enumerate(zip(groups, different, strict=True)):
            rank = dict(zip(shown, ranks.get(place, (0,)), strict=True))
            scores += [-float(rank[answer]) for answer in group]
        return torch.tensor(scores, device=samples.finished.device)
