"""A reward source as the judge of an evaluation: it is asked in small pieces, so that what it said before it failed is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alignbench.contracts import Policy, RewardSource
from alignbench.contracts.subject import Judge
from alignbench.errors import AlignbenchError
from alignbench.records import Generation, Message, Samples

PIECE = 16
"""Responses, or pairs, in one question to the source: what is lost when it fails."""


class Response(NamedTuple):
    """What a judge gets to see."""

    prompt: str
    messages: tuple[Message, ...]
    text: str
    finished: bool


class SourceJudge(Judge):
    """Asks `source` about responses, whoever gave them, and remembers: several metrics ask the same. After a failure, which it
    tells `say`, nothing more is asked in that question: the rest is NaN."""

    def __init__(self, name: str, source: RewardSource, policy: Policy, say: Callable[[str], None]) -> None:
        self.name, self._source, self._policy, self._say = name, source, policy, say
        self._known: dict[tuple[Response, ...], float] = {}

    def fingerprint(self) -> str:
        """As the source's own."""
        return self._source.fingerprint()

    def report(self) -> Mapping[str, float]:
        """What the source says of its own work."""
        return self._source.report()

    def score(self, generations: Sequence[Generation]) -> tuple[float, ...]:
        return self._ask([(g,) for g in generations], self._source.score)

    def compare(self, first: Sequence[Generation], second: Sequence[Generation]) -> tuple[float, ...]:
        return self._ask(list(zip(first, second, strict=True)), self._source.compare)

    def _ask(self, asked: Sequence[tuple[Generation, ...]], question: Callable[..., Tensor]) -> tuple[float, ...]:
        keys = [tuple(Response(g.prompt.id, g.prompt.messages, g.response, g.finished) for g in row) for row in asked]
        new = {key: row for key, row in zip(keys, asked, strict=True) if key not in self._known}
        rows = list(new.items())
        for start in range(0, len(rows), PIECE):
            piece = rows[start : start + PIECE]
            sides = zip(*(row for _, row in piece), strict=True)
            try:
                with torch.no_grad():
                    answers = question(*(self._samples(side) for side in sides)).tolist()
            except AlignbenchError as error:
                self._say(f"the judge {self.name} failed, {start} of {len(rows)} answers are kept: {error}")
                break
            self._known.update(zip((key for key, _ in piece), answers, strict=True))
        return tuple(self._known.get(key, math.nan) for key in keys)

    def _samples(self, generations: Sequence[Generation]) -> Samples:
        policy, ended = self._policy, [g.finished for g in generations]
        texts, prompts = tuple(g.response for g in generations), tuple(g.prompt for g in generations)
        finished = torch.tensor(ended, device=policy.device)
        return Samples(prompts, texts, policy.given(prompts, policy.response_tokens(texts, ended)), finished)
