"""Plain factual questions with their accepted answers: the suite's own, or a file of them; and how often a model knows."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench import ExampleScore, Message, Prompt, Sampling, Subject, UserError
from alignbench_suite.grading import Grade, grade
from alignbench_suite.tasks.files import found, has, number, own

log = logging.getLogger(__name__)

SHORT = Sampling(top_k=1, max_new_tokens=24)
"""Greedy, and long enough for one short sentence: what a model believes, not what it may also say."""

ONE_SENTENCE = "Answer in one short sentence."


@dataclass(frozen=True)
class Fact:
    """`wrong`: a plausible wrong answer, empty where none is known; `distractors`: three wrong choices, it included."""

    id: str
    question: str
    answer: str
    aliases: tuple[str, ...] = ()
    wrong: str = ""
    distractors: tuple[str, ...] = ()

    @property
    def spellings(self) -> tuple[str, ...]:
        return (self.answer, *self.aliases)

    @property
    def opening(self) -> Message:
        return Message("user", f"{self.question} {ONE_SENTENCE}")


def embedded_facts() -> list[Fact]:
    return [_fact(row) for row in own("facts")]


def read_facts(path: Path) -> list[Fact]:
    """JSON lines with id, question, answer and, where there are any, aliases, wrong and distractors."""
    facts = []
    for row, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            facts.append(_fact(json.loads(line)))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {row}: not a question with id, question and answer ({error!r}).") from None
    if not facts:
        raise UserError(f"{path} has no questions.")
    return facts


def facts(folder: str = "", file: str = "", limit: int = 0) -> list[Fact]:
    """The questions of `file` where the folder of evaluation data holds it, in a folder of its own or by itself, else
    those of the suite; `limit` of them (0: all), chosen by a hash of their id: the same for every model."""
    path = found(file, folder) if folder and has(file, folder) else None
    if folder and path is None:
        log.info("%s has no %s: the questions are those of the suite.", folder, file)
    asked = read_facts(path) if path else embedded_facts()
    return sorted(asked, key=lambda fact: number(fact.id))[:limit] if 0 < limit < len(asked) else asked


def graded(text: str, fact: Fact) -> Grade:
    """What the text answers to the question."""
    return grade(text, fact.spellings, fact.wrong, fact.question)


def accuracy(subject: Subject, asked: Sequence[Fact]) -> list[ExampleScore]:
    """helpfulness/facts_accuracy: 1 where the free answer says what is right and not the known wrong answer as well."""
    prompts = [Prompt(f"facts/{fact.id}", (fact.opening,), cluster=fact.id) for fact in asked]
    given = subject.complete(prompts, 1, SHORT)
    return [
        ExampleScore(
            "helpfulness/facts_accuracy",
            fact.id,
            float(graded(answer.response, fact) is Grade.RIGHT),
            fact.id,
        )
        for fact, answer in zip(asked, given, strict=True)
    ]


def _fact(row: Mapping[str, Any]) -> Fact:
    return Fact(
        str(row["id"]),
        str(row["question"]),
        str(row["answer"]),
        tuple(row.get("aliases", ())),
        str(row.get("wrong", "")),
        tuple(row.get("distractors", ())),
    )
