"""Responses of the compared models to the same prompts, side by side, for a page."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignbench.results.compared.table import Row
from alignbench.results.disk.directory import GENERATIONS
from alignbench.results.disk.runs import StoredRun
from alignbench.results.shown.plots.data import json_lines, number
from alignbench.results.shown.plots.text import shown

MOST_PROMPTS = 40
MOST_ROWS = 40
MOST_RESPONSES = 2
LONGEST = 2000
"""Characters of a prompt's message or of a response: the page is one file, and a run can hold gigabytes."""


@dataclass(frozen=True)
class Response:
    text: str
    note: str  # what was measured of it


@dataclass(frozen=True)
class Prompt:
    """`messages`: (role, content). `responses`: one list a column, empty where that run was not asked."""

    title: str
    messages: tuple[tuple[str, str], ...]
    responses: tuple[tuple[Response, ...], ...]


@dataclass(frozen=True)
class SideBySide:
    columns: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    asked: int  # prompts to choose from

    def as_json(self) -> dict[str, Any]:
        return {
            "columns": self.columns,
            "prompts": [
                {
                    "title": prompt.title,
                    "messages": prompt.messages,
                    "responses": [[{"text": r.text, "note": r.note} for r in column] for column in prompt.responses],
                }
                for prompt in self.prompts
            ],
        }


def side_by_side(rows: Sequence[Row]) -> SideBySide:
    """Of the first seed of each row. The prompts are those that most rows answered, drawn by a hash of their name: nobody
    picked them, and another comparison of the same data shows the same ones."""
    found = [(row, _by_prompt(row.runs[0])) for row in rows[:MOST_ROWS]]
    columns = [(row, answers) for row, answers in found if answers]
    counts = Counter(prompt for _, answers in columns for prompt in answers)
    common = [prompt for prompt, count in counts.items() if count == max(counts.values())]
    chosen = sorted(common, key=lambda name: hashlib.sha256(name.encode(errors="replace")).digest())[:MOST_PROMPTS]
    kept = set(chosen)
    return SideBySide(
        columns=tuple(shown(" ".join(row.label), limit=80) for row, _ in columns),
        prompts=tuple(_prompt([answers.get(name, []) for _, answers in columns]) for name in common if name in kept),
        asked=len(common),
    )


def _by_prompt(run: StoredRun) -> dict[str, list[dict[str, Any]]]:
    answers: dict[str, list[dict[str, Any]]] = {}
    for line in json_lines(run.path / GENERATIONS):
        if isinstance(line.get("prompt"), str) and isinstance(line.get("response"), str):
            responses = answers.setdefault(line["prompt"], [])
            if len(responses) < MOST_RESPONSES:
                responses.append(line)
    return answers


def _prompt(columns: Sequence[Sequence[Mapping[str, Any]]]) -> Prompt:
    first = next(line for column in columns for line in column)
    messages = tuple(messages_of(first.get("messages")))
    last = messages[-1][1] if messages else first["prompt"]
    opinion = first.get("opinion")
    about = f" ({opinion} opinion)" if isinstance(opinion, str) and opinion != "none" else ""
    return Prompt(
        title=shown(" ".join(last.split()), limit=100) + shown(about, limit=40),
        messages=messages or (("prompt", shown(first["prompt"], limit=LONGEST)),),
        responses=tuple(
            tuple(Response(visible(line["response"]), note(line)) for line in column) for column in columns
        ),
    )


def messages_of(raw: Any) -> Iterable[tuple[str, str]]:
    for message in raw if isinstance(raw, list) else []:
        if isinstance(message, dict):
            yield shown(str(message.get("role")), limit=40), visible(str(message.get("content")))


def visible(text: str) -> str:
    return shown(text, keep="\n\t", limit=LONGEST)


def note(line: Mapping[str, Any]) -> str:
    figures = [
        f"{name} {line[key]:.2f}"
        for key, name in (("gold_reward", "gold"), ("proxy_reward", "proxy"))
        if number(line.get(key))
    ]
    if number(line.get("tokens")):
        figures.append(f"{line['tokens']:.0f} tokens")
    if line.get("finished") is False:
        figures.append("cut off")
    if line.get("correct") is True:
        figures.append("correct")
    if line.get("agrees") is True:
        stated = line.get("opinion")
        figures.append(f"repeats the {stated} opinion" if stated in ("right", "wrong") else "repeats the opinion")
    return " · ".join(figures)
