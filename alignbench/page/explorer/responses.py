"""Responses of several runs to the same prompts, a page at a time, and those among them that hold a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from alignbench.errors import UserError
from alignbench.page.explorer.library import Recent
from alignbench.page.explorer.tables import paged
from alignbench.results.disk.directory import GENERATIONS
from alignbench.results.disk.runs import StoredRun
from alignbench.results.shown.generations import messages_of, note, visible

MOST_RUNS = 4
PROMPTS_A_PAGE = 10
MOST_RESPONSES = 4
"""Of one run to one prompt."""
LARGEST = 512 * 2**20
"""Bytes of a file that is looked through: its text is kept for the next search."""


class _Message(msgspec.Struct):
    role: str = ""
    content: str = ""


class _Line(msgspec.Struct):
    prompt: str
    response: str
    messages: list[_Message] = []


@dataclass(frozen=True)
class Answers:
    """Of one generations.jsonl: where the lines of each prompt begin, and their text in small letters, for a search."""

    path: Path
    offsets: Mapping[str, Sequence[int]]
    texts: Mapping[str, str]

    def lines(self, prompt: str) -> list[dict[str, Any]]:
        found = []
        with self.path.open("rb") as file:
            for offset in self.offsets.get(prompt, ())[:MOST_RESPONSES]:
                file.seek(offset)
                found.append(json.loads(file.readline().decode(errors="replace")))
        return found


def side_by_side(recent: Recent, runs: Mapping[str, StoredRun], search: str, page: int) -> dict[str, Any]:
    """One page of the prompts that any of `runs` answered and, where `search` is given, that it or an answer to it holds."""
    if len(runs) > MOST_RUNS:
        raise UserError(f"{len(runs)} runs do not fit side by side: choose at most {MOST_RUNS}.")
    columns = {name: _answers(recent, run) for name, run in runs.items()}
    found = [answers for answers in columns.values() if answers]
    prompts = list(dict.fromkeys(prompt for answers in found for prompt in answers.offsets))
    asked = len(prompts)
    if needle := search.casefold().strip():
        prompts = [p for p in prompts if any(needle in answers.texts.get(p, "") for answers in found)]
    start, page, pages = paged(len(prompts), PROMPTS_A_PAGE, page)
    shown = prompts[start : start + PROMPTS_A_PAGE]
    try:
        made = [_prompt(prompt, list(columns.values())) for prompt in shown]
    except (OSError, ValueError) as error:
        raise UserError("The responses changed while they were read: load the page again.") from error
    return {
        "asked": asked,
        "count": len(prompts),
        "page": page,
        "pages": pages,
        "columns": [{"id": name, "missing": answers is None} for name, answers in columns.items()],
        "prompts": made,
    }


def _prompt(prompt: str, columns: Sequence[Answers | None]) -> dict[str, Any]:
    lines = [answers.lines(prompt) if answers else [] for answers in columns]
    first = next((line for column in lines for line in column), {})
    opinion = first.get("opinion")
    return {
        "messages": list(messages_of(first.get("messages"))) or [("prompt", visible(prompt))],
        "opinion": opinion if isinstance(opinion, str) and opinion != "none" else "",
        "responses": [
            [{"text": visible(str(line.get("response"))), "note": note(line)} for line in column] for column in lines
        ],
    }


def _answers(recent: Recent, run: StoredRun) -> Answers | None:
    """None where the run has none."""
    path = run.path / GENERATIONS
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_size > LARGEST:
        size = f"{found.st_size / 2**30:.1f} GiB"
        raise UserError(f"{GENERATIONS} of {run.path.name} has {size}: too large to look through here.")
    return recent.get(("answers", path, found.st_mtime_ns, found.st_size), lambda: _read(path))


def _read(path: Path) -> Answers:
    """A line that is no response is passed over: a file may have been cut off."""
    decoder = msgspec.json.Decoder(_Line)
    offsets: dict[str, list[int]] = {}
    texts: dict[str, list[str]] = {}
    at = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                start, at = at, at + len(raw)
                try:
                    line = decoder.decode(raw)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
                if line.prompt not in offsets:
                    texts[line.prompt] = [message.content for message in line.messages] or [line.prompt]
                offsets.setdefault(line.prompt, []).append(start)
                texts[line.prompt].append(line.response)
    except OSError as error:
        raise UserError(f"Cannot read {GENERATIONS} of {path.parent.name}: {error.strerror}.") from error
    return Answers(path, offsets, {prompt: "\n".join(found).casefold() for prompt, found in texts.items()})
