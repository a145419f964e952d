"""A file of rankings: JSONL that a person can write by hand and that a run writes too.

One line: {"prompt": "text", "responses": ["a", "b", "c"], "ranks": [1, 2, 2]}. The smallest rank is the best and equal
ranks are ties; ranks may start anywhere. Instead of "prompt", "messages" holds a conversation ({"role", "content"}
each) that ends with the user's turn. Optional: "id", "finished" (whether each response ended by itself), and
"annotator" (who ranked; several people's rankings of one prompt are rankings of their own). Other keys are left alone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from alignbench import Message, Prompt, Ranking, UserError

ROLES = ("system", "user", "assistant")


def read_rankings(path: Path) -> list[Ranking]:
    """The rankings of a file, ranks counted from 0. Raises UserError that names the file and the line."""
    try:
        lines = path.expanduser().read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"The rankings file {path} cannot be read: {error.strerror or error}.") from error
    rankings = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rankings.append(_ranking(json.loads(line)))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}).") from error
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
                raise UserError(f"{path}, line {number}: no ranking ({error}).") from error
            except _Malformed as error:
                raise UserError(f"{path}, line {number}: {error}.") from error
    if not rankings:
        raise UserError(f"{path} holds no ranking.")
    return rankings


class _Malformed(Exception):
    """What is wrong with a line; the caller knows which."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise _Malformed(message)


def _require_text(*given: str) -> None:
    for text in given:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = text[error.start]
            raise _Malformed(f"{half!a} is half of a surrogate pair, which no tokenizer reads: {text[:40]!a}") from None


def _ranking(row: Any) -> Ranking:
    _require(isinstance(row, dict), f"an object is needed, not {type(row).__name__}")
    messages = _messages(row)
    responses = _list(row, "responses", str, "texts")
    _require(len(responses) >= 2, f"at least two responses are needed, not {len(responses)}")
    ranks = _list(row, "ranks", int, "whole numbers")
    _require(len(ranks) == len(responses), f"{len(responses)} responses but {len(ranks)} ranks")
    finished = _list(row, "finished", bool, "true or false") if row.get("finished") else []
    _require(len(finished) in (0, len(responses)), f"{len(responses)} responses but {len(finished)} in 'finished'")
    _require_text(*(message.content for message in messages), *responses)
    order = sorted(set(ranks))
    annotator = row.get("annotator", "")
    return Ranking(
        Prompt(_id(row, messages), messages), tuple(responses), tuple(map(order.index, ranks)), tuple(finished),
        annotator if isinstance(annotator, str) else "",
    )  # fmt: skip


def _list(row: dict[str, Any], key: str, kind: type, what: str) -> list[Any]:
    _require(key in row, f"the key {key!r} is missing")
    values = row[key]
    # `type(...) is`: to isinstance, true is a whole number.
    _require(isinstance(values, list) and all(type(v) is kind for v in values), f"{key!r} must be a list of {what}")
    return list(values)


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    _require(("prompt" in row) != ("messages" in row), "either 'prompt' or 'messages' is needed")
    given = [{"role": "user", "content": row["prompt"]}] if "prompt" in row else row["messages"]
    _require(isinstance(given, list) and bool(given), "'messages' must be a list with at least one message")
    for message in given:
        whole = isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)
        _require(whole, f"each message needs a 'role' ({', '.join(ROLES)}) and a 'content' that is text")
    _require(given[-1]["role"] == "user", "the last message must be the user's: it is what the responses answer")
    _require(bool(given[-1]["content"].strip()), "the prompt is empty")
    return tuple(Message(message["role"], message["content"]) for message in given)


def _id(row: dict[str, Any], messages: tuple[Message, ...]) -> str:
    given = row.get("id")
    _require(given is None or isinstance(given, (str, int)), "'id' must be text")
    if given not in (None, ""):
        return str(given)
    return "prompt-" + hashlib.sha256(repr([(m.role, m.content) for m in messages]).encode()).hexdigest()[:16]
