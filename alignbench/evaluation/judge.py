"""A reward source as the judge of an evaluation: it is asked in small pieces, so that what it said before it failed is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignbench.contracts import Judge, Policy, RewardSource
from alignbench.errors import AlignbenchError
from alignbench.records import Generation, Samples

PIECE = 16
"""Responses, or pairs, in one question to the source: what is lost when it fails."""


class SourceJudge(Judge):
    """Asks `source` about responses, whoever gave them. After a failure, which it tells `say`, nothing more is asked in that
    question: the rest is NaN."""

    def __init__(self, name: str, source: RewardSource, policy: Policy, say: Callable[[str], None]) -> None:
        self.name, self._source, self._policy, self._say = name, source, policy, say

    def score(self, generations: Sequence[Generation]) -> tuple[float, ...]:
        return self._ask(len(generations), lambda i, j: self._source.score(self._samples(generations[i:j])))

    def compare(self, first: Sequence[Generation], second: Sequence[Generation]) -> tuple[float, ...]:
        return self._ask(
            len(first), lambda i, j: self._source.compare(self._samples(first[i:j]), self._samples(second[i:j]))
        )

    def _ask(self, count: int, question: Callable[[int, int], Tensor]) -> tuple[float, ...]:
        answers: list[float] = []
        for start in range(0, count, PIECE):
            try:
                with torch.no_grad():
                    answers += question(start, min(start + PIECE, count)).tolist()
            except AlignbenchError as error:
                self._say(f"the judge {self.name} failed, {len(answers)} of {count} answers are kept: {error}")
                break
        return (*answers, *[math.nan] * (count - len(answers)))

    def _samples(self, generations: Sequence[Generation]) -> Samples:
        tokenizer, policy = self._policy.tokenizer, self._policy
        texts, prompts = tuple(g.response for g in generations), tuple(g.prompt for g in generations)
        rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        ended = [g.finished for g in generations]
        rows = [[*row, tokenizer.eos_token_id] if end else row for row, end in zip(rows, ended, strict=True)]
        finished = torch.tensor(ended, device=policy.device)
        return Samples(prompts, texts, policy.given(prompts, rows), finished)
