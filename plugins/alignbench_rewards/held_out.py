"""How often a reward source prefers what was ranked higher, whatever source it is: on the rankings that nothing was fitted to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from alignbench import Prompt, Ranking, Samples, Seeds, Stage, StageResult, StageView
from alignbench_rewards.config import HeldOutConfig


@dataclass(frozen=True)
class _Pair:
    """What was ranked higher and what lower: their scores, and how many words the higher one has more."""

    higher: float
    lower: float
    longer: int

    @property
    def right(self) -> float:
        """1 where the source agrees, half for a tie."""
        return 0.5 * ((self.higher > self.lower) + (self.higher >= self.lower))


class HeldOut(Stage):
    """Also of pairs whose better response is the longer and the shorter one: a source that likes length alone is right on the first."""

    def __init__(self, config: HeldOutConfig, *, seeds: Seeds) -> None:
        self._config = config

    def run(self, view: StageView) -> StageResult:
        rows = [
            (ranking.prompt, text, end)
            for ranking in view.held_out
            for text, end in zip(ranking.responses, ranking.finished or (True,) * len(ranking.responses), strict=True)
        ]
        scores = iter(self._scores(view, rows))
        pairs = [
            pair
            for ranking in view.held_out
            for pair in _pairs(ranking, list(itertools.islice(scores, len(ranking.responses))))
        ]
        groups = {
            "accuracy": pairs,
            "accuracy_longer": [pair for pair in pairs if pair.longer > 0],
            "accuracy_shorter": [pair for pair in pairs if pair.longer < 0],
        }
        figures = {name: math.fsum(pair.right for pair in of) / len(of) for name, of in groups.items() if of}
        told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        return StageResult({"pairs": len(pairs), **figures}, f"{told or 'no pair'} ({len(pairs)} held-out pairs)")

    def _scores(self, view: StageView, rows: Sequence[tuple[Prompt, str, bool]]) -> Iterator[float]:
        assert view.score is not None, "it says that it needs one"
        for start in range(0, len(rows), self._config.batch_size):
            prompts, texts, finished = zip(*rows[start : start + self._config.batch_size], strict=True)
            samples: Samples = view.policy.encode(prompts, texts, finished=finished)
            with torch.no_grad():
                yield from view.score(samples).tolist()


def _pairs(ranking: Ranking, scores: Sequence[float]) -> Iterator[_Pair]:
    """Those that are no ties."""
    words = [len(text.split()) for text in ranking.responses]
    for one, other in itertools.permutations(range(len(scores)), 2):
        if ranking.ranks[one] < ranking.ranks[other]:
            yield _Pair(scores[one], scores[other], words[one] - words[other])
