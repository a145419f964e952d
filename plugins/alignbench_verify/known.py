"""What must come out of the verifier: responses that are right or wrong by each kind of reference, for the conformance kit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from alignbench import Case, Constraint, DataSource, Known, Message, Policy, Prompt, Reference, Samples, Subject


def _asked(name: str, **reference: Any) -> Prompt:
    return Prompt(name, (Message("user", f"A question of {name}?"),), reference=Reference(**reference))


TEXT = _asked("text", answer="New York")
NUMBER = _asked("number", answer="She has 2 + 2 = 4. #### 1,204.5")
CHOICE = _asked("choice", answer="B", choices=("red", "blue", "not blue"))
PATTERN = _asked("pattern", answer=r"\d{3}-\d{4}")
WORDS = _asked("words", constraints=(Constraint("punctuation:no_comma"),))


def _right(answer: str, response: str) -> bool:
    """As people compare short answers: case, white space and marks around them do not matter."""

    def plain(text: str) -> str:
        return " ".join(text.casefold().split()).strip("\"'. ")

    return plain(response) == plain(answer)


def cases() -> list[Case]:
    rows: list[tuple[Prompt, str, bool]] = [
        (TEXT, "New York", True),
        (TEXT, '  "new  york." ', True),
        (TEXT, "York", False),
        (TEXT, "New York City", False),
        (TEXT, "I think. The answer is New York", True),
        (TEXT, "", False),
        (NUMBER, "1204.5", True),
        (NUMBER, "So 3 and 4 make $1,204.50", True),
        (NUMBER, "It is 2409/2 .", True),
        (NUMBER, "1204.5 or 7", False),
        (NUMBER, "#### 1204.5 and not 9", True),
        (NUMBER, "\\boxed{7} and 1204.5", False),
        (NUMBER, "-1204.5", False),
        (NUMBER, "12045", False),
        (CHOICE, "B", True),
        (CHOICE, "(b)", True),
        (CHOICE, "The answer is B, since A is wrong.", True),
        (CHOICE, "blue", True),
        (CHOICE, "not blue", False),
        (CHOICE, "A", False),
        (CHOICE, "red or blue", False),
    ]
    made = [Case(prompt, text, float(right)) for prompt, text, right in rows]
    return [*made, Case(TEXT, "New York", 0.0, finished=False), Case(NUMBER, "1204.5", 0.0, finished=False)]


def verify() -> list[Known]:
    """The sum of the weights of the checks that are passed. A response that was cut off passes none, unless it is asked for."""

    def gives(config: Any, policy: Policy, data: DataSource, samples: Samples) -> list[float]:
        rows = zip(samples.prompts, samples.texts, samples.finished.tolist(), strict=True)
        right = [
            (ended or config.unfinished) and prompt.reference is not None and _right(prompt.reference.answer, text)
            for prompt, text, ended in rows
        ]
        return [sum(config.checks.values() or [1.0]) * one for one in right]

    cut = [Case(TEXT, "New York", -0.5, finished=False), Case(TEXT, "York", 0.0, finished=False)]
    both = [
        Case(PATTERN, "555-1234", 2.0),
        Case(PATTERN, "call 555-1234 now", 2.0),
        Case(PATTERN, r"\d{3}-\d{4}", 0.25),
        Case(PATTERN, "555 1234", 0.0),
    ]
    return [
        Known({}, gives, cases=cases()),
        Known({"checks": {"exact": -0.5}, "unfinished": True}, gives, cases=cut),
        Known({"checks": {"exact": 0.25, "regex": 2.0}}, cases=both),
        Known(cases=[Case(WORDS, "no such sign", 1.0), Case(WORDS, "one, two", 0.0)]),
    ]


def reference() -> list[Known]:
    """What is right before what is not; all alike where nothing, or everything, is right."""

    def gives(config: Any, data: DataSource, prompt: Prompt, texts: Sequence[str], ends: Sequence[bool]) -> list[int]:
        assert prompt.reference is not None
        right = [
            (end or config.unfinished) and _right(prompt.reference.answer, text)
            for text, end in zip(texts, ends, strict=True)
        ]
        return [int(not one and any(right)) for one in right]

    return [Known({}, gives), Known({"unfinished": True}, gives)]


def verified() -> list[Known]:
    """pass@k: the chance that of k of the n responses, drawn without putting any back, one is right (arXiv 2107.03374)."""

    def gives(config: Any, subject: Subject) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for group in subject.by_prompt():
            prompt = group[0].prompt
            assert prompt.reference is not None
            wrong = sum(
                not ((g.finished or config.unfinished) and _right(prompt.reference.answer, g.response)) for g in group
            )
            for k in (1, 2, 4, 8, 16, 32, 64):
                if k <= len(group):
                    missed = math.prod((wrong - i) / (len(group) - i) for i in range(k)) if wrong >= k else 0.0
                    found.setdefault(f"verified/pass_at_{k}", {})[prompt.id] = 1 - missed
        return found

    return [Known({}, gives), Known({"unfinished": True}, gives)]
