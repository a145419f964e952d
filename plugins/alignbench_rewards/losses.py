"""Losses and figures of reward models fitted to rankings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alignbench import Annotator, Ranking
from alignbench.functional import calibration_shares, ranking_to_pairs
from alignbench_rewards.config import LearnedConfig


@dataclass(frozen=True)
class PairIndex:
    """Pairs of rows: row `better[i]` is preferred to `worse[i]`, both of ranking `owner[i]`; `weight` sums to 1 in each. `rated` is the
    difference of their ratings, 0 in a ranking that brings none."""

    better: Tensor
    worse: Tensor
    owner: Tensor
    weight: Tensor
    rated: Tensor


def index_pairs(rankings: Sequence[Ranking]) -> PairIndex:
    """The pairs of consecutive rankings whose responses lie row after row. Ties and identical responses give no pair."""
    better: list[int] = []
    worse: list[int] = []
    owner: list[int] = []
    weight: list[float] = []
    rated: list[float] = []
    first = 0
    for number, ranking in enumerate(rankings):
        size = len(ranking.ranks)
        pairs = [
            (a, b)
            for a in range(size)
            for b in range(size)
            if ranking.ranks[a] < ranking.ranks[b] and ranking.responses[a] != ranking.responses[b]
        ]
        better += [first + a for a, _ in pairs]
        worse += [first + b for _, b in pairs]
        owner += [number] * len(pairs)
        weight += [1.0 / len(pairs) for _ in pairs]
        rated += [ranking.scores[a] - ranking.scores[b] if ranking.scores else 0.0 for a, b in pairs]
        first += size
    return PairIndex(
        torch.tensor(better, dtype=torch.long),
        torch.tensor(worse, dtype=torch.long),
        torch.tensor(owner, dtype=torch.long),
        torch.tensor(weight),
        torch.tensor(rated),
    )


def bradley_terry(scores: Tensor, rankings: Sequence[Ranking], margin: float = 0.0) -> Tensor:
    """Sum over prompts of the mean over pairs of -log sigmoid(r_better - r_worse - m) (arXiv 2203.02155, equation 1). m is `margin` times
    the difference of the two ratings: the better by as much, the further apart (arXiv 2307.09288, equation 2)."""
    pairs = index_pairs(rankings)
    gap = scores[pairs.better] - scores[pairs.worse]
    return -(nn.functional.logsigmoid(gap - margin * pairs.rated.to(gap)) * pairs.weight.to(gap)).sum()


def plackett_luce(scores: Tensor, rankings: Sequence[Ranking]) -> Tensor:
    """Sum over prompts of the negative log-likelihood of the ranking, divided by its K - 1 choices.

    Ties by Breslow's approximation: tied responses are each chosen from the same remaining set."""
    total = scores.new_zeros(())
    first = 0
    for ranking in rankings:
        size = len(ranking.ranks)
        own, ranks = scores[first : first + size], torch.tensor(ranking.ranks, device=scores.device)
        worst = int(ranks.max())
        choosing = [k for k in range(size) if ranking.ranks[k] < worst]  # the last place is no choice
        for k in choosing:
            total = total + (torch.logsumexp(own[ranks >= ranks[k]], 0) - own[k]) / max(len(choosing), 1)
        first += size
    return total


def loss_of(config: LearnedConfig, scores: Tensor, rankings: Sequence[Ranking]) -> Tensor:
    """The loss that is chosen, summed over prompts."""
    if config.loss == "plackett_luce":
        return plackett_luce(scores, rankings)
    return bradley_terry(scores, rankings, config.margin)


@dataclass(frozen=True)
class PairFigures:
    """How well scores predict held-out pairs."""

    accuracy: float
    accuracy_stderr: float
    pairs: int
    calibration_error: float
    prompts: int


def pair_figures(scores: Tensor, rankings: Sequence[Ranking], *, bins: int = 10) -> PairFigures:
    """Accuracy (a tie of scores counts half), its standard error clustered by prompt (Liang & Zeger 1986; NaN for one: rankings of
    one prompt, copies of one ranking above all, are right or wrong together), and the expected calibration error of P(better) = sigmoid(margin) over `bins` equal-width bins of confidence (Guo et al., arXiv 1706.04599)."""
    pairs = index_pairs(rankings)
    scores = scores.detach().double().cpu()
    margin = scores[pairs.better] - scores[pairs.worse]
    right = (margin > 0).double() + 0.5 * (margin == 0).double()
    accuracy = float(right.mean())

    numbers: dict[object, int] = {}
    prompts = torch.tensor([numbers.setdefault(r.prompt.messages, len(numbers)) for r in rankings])[pairs.owner]
    groups = len(prompts.unique())
    sums = torch.zeros(len(numbers), dtype=torch.double).index_add_(0, prompts, right - accuracy)
    stderr = math.sqrt(groups / (groups - 1) * float(sums.square().sum())) / len(right) if groups > 1 else math.nan

    error = float(calibration_shares(torch.sigmoid(margin.abs()), right, bins).mean())
    return PairFigures(accuracy, stderr, len(right), error, groups)


def annotator_ceiling(annotator: Annotator, rankings: Sequence[Ranking]) -> float | None:
    """The accuracy of the annotator's own noiseless preference on these noisy rankings; None where it is not known."""
    right: list[float] = []
    for ranking in rankings:
        for pair in ranking_to_pairs(ranking):
            p = annotator.preference(pair.prompt, pair.chosen, pair.rejected, finished=pair.finished)
            if p is None:
                return None
            right.append(0.5 if math.isclose(p, 0.5) else float(p > 0.5))
    return sum(right) / len(right) if right else None
