"""A language model ranks responses: AI feedback (Bai et al., arXiv 2212.08073; Lee et al., arXiv 2309.00267)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from alignbench import Annotator, DataSource, Prompt, Seeds, functional
from alignbench_rewards.config import JudgeAnnotatorConfig
from alignbench_rewards.judge import Judge, Row


class JudgeAnnotator(Annotator):
    """Ranks by the pairs that a response wins. A pair is won where the judge says so in both orders; all else is a tie, since a
    judge that prefers what it is shown first knows no better (arXiv 2306.05685)."""

    known = "alignbench_rewards.known:judge_annotator"

    def __init__(self, config: JudgeAnnotatorConfig, *, data: DataSource, seeds: Seeds) -> None:
        self._judge = Judge(config, seeds)

    def fingerprint(self) -> str:
        return self._judge.fingerprint()

    def report(self) -> Mapping[str, float]:
        return self._judge.report()

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool]) -> tuple[int, ...]:
        return self.rank_all([prompt], [responses], finished=[finished])[0]

    def rank_all(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], *, finished: Sequence[Sequence[bool]]
    ) -> list[tuple[int, ...]]:
        """All questions at once: several are under way at a time."""
        groups: list[list[Row]] = [
            [(prompt, text, end) for text, end in zip(texts, ends, strict=True)]
            for prompt, texts, ends in zip(prompts, responses, finished, strict=True)
        ]
        if self._judge.config.comparison == "scalar":
            ratings = iter(self._judge.rate([row for rows in groups for row in rows]))
            return [functional.ranks_of([next(ratings) for _ in rows]) for rows in groups]
        verdicts = iter(self._judge.compare([pair for rows in groups for pair in itertools.combinations(rows, 2)]))
        ranks = []
        for rows in groups:
            wins = [0.0] * len(rows)
            for one, other in itertools.combinations(range(len(rows)), 2):
                verdict = next(verdicts)
                won = verdict if verdict in (0.0, 1.0) else 0.5  # no verdict, or one in one order alone
                wins[one] += won
                wins[other] += 1 - won
            ranks.append(functional.ranks_of(wins))
        return ranks
