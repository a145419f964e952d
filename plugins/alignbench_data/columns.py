"""From a data set's own column names to what they mean: its roles."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignbench import unknown_name

ROLES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction", "query", "history", "context", "post", "problem"),
    "input": ("input",),
    "messages": ("messages", "conversations", "conversation"),
    "text": ("text",),
    "system": ("system", "system_prompt", "system_message"),
    "chosen": ("chosen", "preferred", "chosen_response"),
    "rejected": ("rejected", "dispreferred", "rejected_response"),
    "chosen_score": ("chosen_score", "score_chosen", "chosen_rating", "rating_chosen"),
    "rejected_score": ("rejected_score", "score_rejected", "rejected_rating", "rating_rejected"),
    "margin": ("margin",),
    "responses": ("responses", "completions", "candidates", "summaries"),
    "scores": ("scores", "ratings", "rewards"),
    "ranks": ("ranks", "ranking"),
    "finished": ("finished",),
    "answer": ("answer", "ground_truth", "final_answer", "answer_key", "answerkey", "solution"),
    "response": ("response", "completion", "output", "solution"),
    "label": ("label",),
    "winner": ("winner", "better_response_id"),
    "preference": ("overall_preference",),
    "pairwise": (),
    "best": ("best", "choice"),
    "turn": ("turn",),
    "annotator": ("annotator", "annotator_id", "judge", "worker", "worker_id", "rater"),
    "choices": ("choices", "options"),
    "tests": ("tests", "test_list", "unit_tests", "test"),
    "constraints": ("constraints", "instruction_id_list"),
    "constraint_arguments": ("constraint_arguments", "kwargs"),
    "subset": ("subset", "category", "domain", "difficulty", "level", "topic", "source"),
    "id": ("id",),
}
"""Each role and the names by which it is known, the surest first. A column plays one role, unless the user names it for several."""
COUPLES = (
    ("response_a", "response_b"),
    ("response_0", "response_1"),
    ("response_1", "response_2"),
    ("response1", "response2"),
    ("conversation_a", "conversation_b"),
    ("completion_a", "completion_b"),
    ("completion_1", "completion_2"),
    ("answer_a", "answer_b"),
    ("output_a", "output_b"),
    ("output_1", "output_2"),
    ("human_ref_a", "human_ref_b"),
)
"""Names of two responses that are compared: the roles response_a and response_b."""
NAMES = (*ROLES, "response_a", "response_b")


@dataclass(frozen=True)
class Fields:
    """A row by roles. `columns`: the column that each role was read from; `row`: all that is in the row; `said`: the roles whose
    columns the user named. `asks`: the column of the prompt in other rows of its file. `used`: the roles whose values were read."""

    values: Mapping[str, Any]
    columns: Mapping[str, str]
    row: Mapping[str, Any]
    said: frozenset[str] = frozenset()
    asks: str = ""
    used: set[str] = field(default_factory=set, compare=False)

    def __contains__(self, role: str) -> bool:
        return self.values.get(role) is not None

    def get(self, role: str) -> Any:
        self.used.add(role)
        return self.values.get(role)

    def there(self, role: str) -> bool:
        """Whether the row has a column for it, be it empty."""
        if role not in self.said:
            return role in self.columns
        return any(part in self.row or part.split(".")[0] in self.row for part in self.columns[role].split(", "))

    def name(self, role: str) -> str:
        """What the user calls it."""
        return self.columns.get(role, role)


@dataclass(frozen=True)
class Columns:
    """Reads rows by role. `given`: the user's own names, which go before what is known; `lenient`: where a row has them."""

    given: Mapping[str, Any] = field(default_factory=dict)
    lenient: bool = False

    def __post_init__(self) -> None:
        for role in self.given:
            if role not in NAMES:
                raise unknown_name("role", role, NAMES, where="data.columns")

    def fields(self, row: Mapping[str, Any]) -> Fields:
        given = self.given
        if self.lenient:
            given = {role: where for role, where in given.items() if str(where).split(".")[0] in row}
        wanted = {role: _parts(where) for role, where in given.items()}
        assigned = {part if part in row else part.split(".")[0] for parts in wanted.values() for part in parts}
        named = _known(tuple(name for name in map(str, row) if name not in assigned), frozenset(given))
        values = {role: row[column] for role, column in named.items()}
        columns = dict(named)
        for role, parts in wanted.items():
            found = [_look_up(row, part) for part in parts]
            columns[role] = ", ".join(parts)
            one = found[0] if isinstance(given[role], str) or not isinstance(given[role], Sequence) else found
            values[role] = None if any(part is None for part in found) else one
        return Fields(values, columns, row, frozenset(given))

    def missing(self, row: Mapping[str, Any]) -> str:
        """A column that the user named and that is not there, as a sentence; empty where all are."""
        for role, where in self.given.items():
            for part in _parts(where):
                if part not in row and part.split(".")[0] not in row:
                    near = difflib.get_close_matches(part, map(str, row), n=1)
                    hint = f" (closest: {near[0]!r})" if near else ""
                    return f"data.columns.{role}={part} is no column{hint}"
        return ""


@functools.lru_cache(maxsize=4096)
def _known(names: tuple[str, ...], taken: frozenset[str]) -> dict[str, str]:
    """The columns whose names say what they are; cached, as most rows of a file have the same ones."""
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(name.strip().lower().replace(" ", "_").replace("-", "_"), name)
    found: dict[str, str] = {}
    used: set[str] = set()
    for role, known in ROLES.items():
        column = next((by_name[name] for name in known if name in by_name and name not in used), None)
        if column is not None and role not in taken:
            found[role] = column
            used.update(name for name in known if by_name.get(name) == column)
    for first, second in COUPLES:
        if first in by_name and second in by_name and not {"response_a", "response_b"} & taken:
            return found | {"response_a": by_name[first], "response_b": by_name[second]}
    return found


def _parts(where: Any) -> list[str]:
    """The columns that the user named for a role."""
    return list(map(str, where)) if isinstance(where, Sequence) and not isinstance(where, str) else [str(where)]


def _look_up(row: Mapping[str, Any], where: str) -> Any:
    if where in row:
        return row[where]
    value: Any = row
    for part in where.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def unpacked(value: Any, *, objects: bool = False) -> Any:
    """A list that was written as JSON into a text column, as in CSV; with `objects` also an object; anything else as it is."""
    ends = ("[]", "{}") if objects else ("[]",)
    if isinstance(value, str) and value[:1] + value[-1:] in ends:
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return found if isinstance(found, (list, dict)) else value
    return value
