"""Items from a file that people already have: prompts with responses, ranked or not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from alignbench.errors import UserError
from alignbench.page.rank.items import Item, dense
from alignbench.paths import user_path
from alignbench.records import Message

ROLES = ("system", "user", "assistant")


def read_items(path: Path) -> list[Item]:
    """One item a line, as a rankings file has them; with `"gold": true` its `ranks` are right, and people are checked by it. Ranks
    of other lines are left alone. Raises UserError that names the line."""
    try:
        lines = user_path(path, "file").read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_item(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}).") from error
            except UserError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
    if not found:
        raise UserError(f"{path} holds no item.")
    return found


def _item(row: Any) -> Item:
    if not isinstance(row, dict):
        raise UserError("an object is needed.")
    messages = _messages(row)
    responses, ranks, finished = row.get("responses"), row.get("ranks", []), row.get("finished") or []
    if not isinstance(responses, list) or not all(isinstance(text, str) for text in responses):
        raise UserError("'responses' must be a list of texts.")
    if len(responses) > 1 and len(set(responses)) == 1:
        raise UserError("all 'responses' are the same: there is nothing to rank.")
    if not isinstance(finished, list) or not all(isinstance(end, bool) for end in finished):
        raise UserError("'finished' must be a list of true and false.")
    gold: tuple[int, ...] = ()
    if row.get("gold"):
        if not isinstance(ranks, list) or not all(type(rank) is int for rank in ranks) or len(set(ranks)) < 2:
            raise UserError("a gold question needs 'ranks', whole numbers that are not all the same.")
        gold = dense(ranks)
    cluster = row.get("cluster", "")
    if not isinstance(cluster, str):
        raise UserError("'cluster' must be text.")
    return Item(_id(row, messages), messages, tuple(responses), tuple(finished), gold, cluster)


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    if ("prompt" in row) == ("messages" in row):
        raise UserError("either 'prompt' or 'messages' is needed.")
    given = [{"role": "user", "content": row["prompt"]}] if "prompt" in row else row["messages"]
    if not isinstance(given, list) or not given:
        raise UserError("'messages' must be a list with at least one message.")
    for message in given:
        whole = isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)
        if not whole:
            raise UserError(f"each message needs a 'role' ({', '.join(ROLES)}) and a 'content' that is text.")
    if given[-1]["role"] != "user":
        raise UserError("the last message must be the user's: it is what the responses answer.")
    return tuple(Message(message["role"], message["content"]) for message in given)


def _id(row: dict[str, Any], messages: tuple[Message, ...]) -> str:
    """As the reader of rankings names a prompt without an id."""
    given = row.get("id")
    if given not in (None, ""):
        return str(given)
    return (
        "prompt-"
        + hashlib.sha256(repr([(m.role, m.content) for m in messages]).encode("utf-8", "backslashreplace")).hexdigest()[
            :16
        ]
    )
