"""What a source prefers beside what it should: longer responses, and whichever of two it is shown first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignbench.contracts import Policy, RewardSource
from alignbench.evaluation.reward_models.accuracy import OWN, named
from alignbench.evaluation.reward_models.found import Found, found, name, share, spearman
from alignbench.evaluation.reward_models.scored import PIECE, ScoredPair, ScoredRanking
from alignbench.records import Direction, Metric, MetricSpec, Samples


def length(scored: Sequence[ScoredRanking], pairs: Sequence[ScoredPair]) -> Found:
    """The rank correlation of score and length (in characters) among responses to the same prompt, averaged over prompts; beside it
    that of the data's own ranks, which is what a source without a bias would have; and accuracy by which of a pair is longer
    (Singhal et al., arXiv 2310.03716)."""
    rows, own = [], []
    for example, one in named(scored):
        lengths = [len(text) for text in one.ranking.responses]
        if len(set(lengths)) > 1:
            rows.append((example, spearman(one.scores, lengths), one.cluster))
            own.append((example, spearman([-rank for rank in one.ranking.ranks], lengths), one.cluster))
    unit = "rank correlation within a prompt"
    total = Found()
    if rows:
        total += found(MetricSpec(name("length_correlation"), Direction.NEITHER, unit), rows)
        total += found(MetricSpec(name("length_correlation_of_data"), Direction.NEITHER, unit), own)
    for label, sign in zip(OWN, (1, -1), strict=True):
        if chosen := [(p.example, p.right, p.cluster) for p in pairs if p.longer * sign > 0]:
            total += found(share(f"accuracy_{label}", "share of pairs, ties of scores half"), chosen)
    return total


def compares(reward: RewardSource) -> bool:
    """Whether it sets two responses side by side, instead of comparing their scores."""
    return type(reward).compare is not RewardSource.compare


def position(reward: RewardSource, policy: Policy, pairs: Sequence[ScoredPair]) -> Found:
    """Of a source that compares: the accuracy of its comparisons, the mean of both orders, and how often the orders agree. A source
    that asks in both orders by itself says so in its report (`pairs`, `orders_disagree`), and is not asked twice: those counts do not tell
    which pairs are of one prompt, so that share has no interval."""
    better, worse = ([_Side(pair, side) for pair in pairs] for side in ("better", "worse"))
    forward = _preferred(reward.compare, policy, better, worse)
    said = reward.report()
    twice = "orders_disagree" not in said
    backward = [1 - value for value in _preferred(reward.compare, policy, worse, better)] if twice else forward
    rows = list(zip(pairs, forward, backward, strict=True))
    right = share("compared_accuracy", "share of pairs, both orders, ties half")
    total = found(right, ((p.example, (one + other) / 2, p.cluster) for p, one, other in rows))
    agree = share("orders_agree", "share of pairs")
    if twice:
        return total + found(agree, ((p.example, _agree(one, other), p.cluster) for p, one, other in rows))
    return total + _of_counts(agree, int(said["pairs"] - said["orders_disagree"]), int(said["pairs"]))


def _agree(one: float, other: float) -> float:
    return math.nan if math.isnan(one + other) else float(one == other)


class _Side:
    """One response of a pair."""

    def __init__(self, pair: ScoredPair, side: str) -> None:
        ranking, number = pair.ranking, getattr(pair, side)
        self.prompt, self.text = ranking.prompt, ranking.responses[number]
        self.finished = ranking.finished[number] if ranking.finished else True


def _preferred(
    compare: Callable[[Samples, Samples], Tensor], policy: Policy, first: Sequence[_Side], second: Sequence[_Side]
) -> list[float]:
    found: list[float] = []
    for start in range(0, len(first), PIECE):
        sides = (side[start : start + PIECE] for side in (first, second))
        with torch.no_grad():
            found += compare(*(_samples(policy, side) for side in sides)).tolist()
    return found


def _samples(policy: Policy, sides: Sequence[_Side]) -> Samples:
    texts, ended = [s.text for s in sides], [s.finished for s in sides]
    return policy.encode([s.prompt for s in sides], texts, finished=ended)


def _of_counts(spec: MetricSpec, yes: int, of: int) -> Found:
    if not of:
        return Found()
    return Found(metrics={spec.name: Metric(yes / of, math.nan, of, spec.direction, share=spec.share)})
