"""A layout of rows: answers to a question, each with its stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignbench import Format, Message, Prompt, Ranking, UserError
from alignbench_example.config import StarsConfig


class Stars(Format):
    """{"ask": text, "answers": [{"says": text, "stars": number}, ...]}; one answer alone ranks nothing."""

    def __init__(self, config: StarsConfig) -> None:
        self.config = config

    def read(self, row: Mapping[str, Any]) -> Sequence[Ranking]:
        answers = row["answers"]
        if len(answers) < 2:
            return ()
        stars = [answer["stars"] for answer in answers]
        if not all(0 <= given <= self.config.most for given in stars):
            raise UserError(f"{max(stars)} stars, of at most {self.config.most}")
        order = sorted(set(stars), reverse=True)
        prompt = Prompt("", (Message("user", row["ask"]),))  # without an id it is named by its words
        ranks = tuple(order.index(given) for given in stars)
        return [Ranking(prompt, tuple(answer["says"] for answer in answers), ranks, scores=tuple(map(float, stars)))]
