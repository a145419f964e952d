"""What pairs taught the policy: it is its own reward model (arXiv 2305.18290), asked about rankings that it did not learn from."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignbench import Direction, Evaluation, ExampleScore, MeasuredRanking, MetricSpec, Subject, functional
from alignbench_suite.config import PreferencesConfig

PAIRS = "held-out pairs"


@dataclass(frozen=True)
class Pair:
    """Two responses of a held-out ranking, of which `better` is preferred."""

    example: str
    cluster: str
    ranking: MeasuredRanking
    better: int
    worse: int


class Preferences(Evaluation):
    known = "alignbench_suite.known:preferences"

    def __init__(self, config: PreferencesConfig) -> None:
        self.config = config

    def specs(self) -> Sequence[MetricSpec]:
        return (
            MetricSpec(
                "preferences/accuracy", Direction.HIGHER, f"share of {PAIRS}, by the implicit reward", share=True
            ),
            MetricSpec(
                "preferences/margin", Direction.HIGHER, f"nats, of the implicit reward without beta, over {PAIRS}"
            ),
            MetricSpec(
                "preferences/calibration_error",
                Direction.LOWER,
                f"expected calibration error of sigmoid(beta margin), over {PAIRS}",
            ),
            MetricSpec(
                "preferences/ranking_accuracy", Direction.HIGHER, f"share of {PAIRS}, by log-probability", share=True
            ),
        )

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        pairs = list(held_out_pairs(subject.preferences(self.config.limit)))
        if not pairs:
            return ()
        likelier = margins(pairs, lambda ranking, i: ranking.logprobs[i])
        scores = named("preferences/ranking_accuracy", pairs, won(likelier))
        if (implicit := subject.implicit) is None:
            return scores

        def worth(ranking: MeasuredRanking, i: int) -> float:
            gained = ranking.logprobs[i] - (ranking.ref_logprobs[i] if implicit.uses_reference else 0.0)
            return gained / max(ranking.tokens[i], 1) if implicit.per_token else gained

        margin = margins(pairs, worth)
        scores += named("preferences/accuracy", pairs, won(margin))
        scores += named("preferences/margin", pairs, margin)
        if implicit.beta is not None:
            confidence = torch.sigmoid(implicit.beta * margin.abs())
            errors = functional.calibration_shares(confidence, won(margin))
            scores += named("preferences/calibration_error", pairs, errors)
        return scores


def held_out_pairs(rankings: Sequence[MeasuredRanking]) -> Iterator[Pair]:
    """All pairs of different responses of different rank. Pairs of one prompt are right or wrong together: one cluster."""
    seen: Counter[str] = Counter()
    for found in rankings:
        ranking, prompt = found.ranking, found.ranking.prompt
        number, seen[prompt.id] = seen[prompt.id], seen[prompt.id] + 1
        for better, worse in itertools.permutations(range(len(ranking.ranks)), 2):
            above = ranking.ranks[better] < ranking.ranks[worse]
            if above and ranking.responses[better] != ranking.responses[worse]:
                example = f"{prompt.id} {number}: {better} over {worse}"
                yield Pair(example, prompt.cluster or prompt.id, found, better, worse)


def margins(pairs: Sequence[Pair], worth: Callable[[MeasuredRanking, int], float]) -> Tensor:
    """[pairs] float64: by how much the better response is worth more."""
    gaps = [worth(pair.ranking, pair.better) - worth(pair.ranking, pair.worse) for pair in pairs]
    return torch.tensor(gaps, dtype=torch.float64)


def won(margin: Tensor) -> Tensor:
    return functional.preferred(margin, torch.zeros_like(margin))


def named(metric: str, pairs: Sequence[Pair], values: Tensor) -> list[ExampleScore]:
    return [
        ExampleScore(metric, pair.example, value, pair.cluster)
        for pair, value in zip(pairs, values.tolist(), strict=True)
    ]
