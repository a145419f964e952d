"""Rows of a layout that another plugin reads: what it gives is held to what every row of this data may say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from alignbench import Demonstration, Format, Labelled, Prompt, Ranking, UserError
from alignbench_data.content import prompt_id, text
from alignbench_data.reasons import Reason, Unusable

Own = TypeVar("Own", Ranking, Labelled, Demonstration)


def read(layout: Format, name: str, row: Mapping[str, Any]) -> list[Ranking | Labelled | Demonstration | Prompt]:
    """What it says of a row. Raises Unusable for a row, or a record of it, that cannot be used."""
    try:
        found = list(layout.read(row))
    except (
        Exception
    ) as error:  # a plugin may fail in any way; the share of rows that do is judged like any other damage
        said = " ".join(str(error).split())
        said = said if isinstance(error, UserError) else f"{type(error).__name__}: {said}"
        raise Unusable(Reason.MALFORMED, f"data.format={name}: {said}") from error
    if not found:
        raise Unusable(Reason.NOTHING_RANKED, f"data.format={name} reads nothing in it")
    return [_checked(record, name) for record in found]


def _checked(record: object, name: str) -> Ranking | Labelled | Demonstration | Prompt:
    match record:
        case Prompt():
            return _prompt(record, name)
        case Ranking():
            order = sorted(set(record.ranks))  # theirs may begin at 1, or leave a number out
            ranks = tuple(order.index(rank) for rank in record.ranks)
            responses = tuple(record.responses)
            return _of(dataclasses.replace(record, responses=responses, ranks=ranks), responses, name)
        case Labelled() | Demonstration():
            return _of(record, (record.response,), name)
    raise Unusable(Reason.MALFORMED, f"data.format={name} gives a {type(record).__name__}, which is no record")


def _of(record: Own, responses: tuple[str, ...], name: str) -> Own:
    empty = [response for response in responses if not text(response, "a response").strip()]
    if empty:
        raise Unusable(Reason.EMPTY_RESPONSE, f"data.format={name} gives an empty response")
    return dataclasses.replace(record, prompt=_prompt(record.prompt, name))


def _prompt(asked: Prompt, name: str) -> Prompt:
    """Named by its words where it has no id: one conversation has one id everywhere."""
    turns = tuple(asked.messages)
    said = [text(turn.content, "a message") for turn in turns]
    if not turns or turns[-1].role != "user" or not said[-1].strip():
        raise Unusable(Reason.NO_PROMPT, f"data.format={name}: the last message must be the user's, and say something")
    return dataclasses.replace(asked, messages=turns, id=asked.id or prompt_id(turns))
