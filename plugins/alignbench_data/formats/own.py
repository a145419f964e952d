"""Rows of a layout that another plugin reads: what it gives is held to what every row of this data may say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from alignbench import Demonstration, Format, Labelled, Prompt, Ranking, UserError
from alignbench_data.content import prompt_id, text
from alignbench_data.reasons import Reason, Unusable


def read(layout: Format, name: str, row: Mapping[str, Any]) -> list[Ranking | Labelled | Demonstration | Prompt]:
    """What it says of a row. Raises Unusable for a row, or a record of it, that cannot be used."""
    try:
        found = [_checked(record, name) for record in layout.read(row)]
    except Unusable:
        raise
    except (
        Exception
    ) as error:  # a plugin may fail in any way; the share of rows that do is judged like any other damage
        said = " ".join(str(error).split())
        said = said if isinstance(error, UserError) else f"{type(error).__name__}: {said}"
        raise Unusable(Reason.MALFORMED, f"data.format={name}: {said}") from error
    if not found:
        raise Unusable(Reason.NOTHING_RANKED, f"data.format={name} reads nothing in it")
    return found


def _checked(record: object, name: str) -> Ranking | Labelled | Demonstration | Prompt:
    match record:
        case Prompt():
            return _prompt(record, name)
        case Ranking():
            return _ranking(record, name)
        case Labelled() | Demonstration():
            return dataclasses.replace(
                record, prompt=_prompt(record.prompt, name), response=_response(record.response, name)
            )
    raise Unusable(Reason.MALFORMED, f"data.format={name} gives a {type(record).__name__}, which is no record")


def _ranking(record: Ranking, name: str) -> Ranking:
    """Ranks from 0 without a gap: theirs may begin at 1, or leave a number out."""
    responses = tuple(_response(one, name) for one in record.responses)
    scores = tuple(float(score) for score in record.scores)
    if odd := [one for one in (*record.ranks, *scores) if not math.isfinite(one)]:
        raise Unusable(Reason.MALFORMED, f"data.format={name} gives {odd[0]} as a rank or a score")
    for what, given in (("finished", record.finished), ("scores", scores), ("styles", record.styles)):
        if len(given) not in (0, len(responses)):
            said = f"data.format={name} gives {len(given)} {what} of {len(responses)} responses"
            raise Unusable(Reason.MALFORMED, said)
    order = sorted(set(record.ranks))
    ranks = tuple(order.index(rank) for rank in record.ranks)
    prompt = _prompt(record.prompt, name)
    return dataclasses.replace(record, prompt=prompt, responses=responses, ranks=ranks, scores=scores)


def _response(given: object, name: str) -> str:
    if not (said := text(given, "a response")).strip():
        raise Unusable(Reason.EMPTY_RESPONSE, f"data.format={name} gives an empty response")
    return said


def _prompt(asked: Prompt, name: str) -> Prompt:
    """Named by its words where it has no id: one conversation has one id everywhere."""
    turns = tuple(asked.messages)
    said = [text(turn.content, "a message") for turn in turns]
    if not turns or turns[-1].role != "user" or not said[-1].strip():
        raise Unusable(Reason.NO_PROMPT, f"data.format={name}: the last message must be the user's, and say something")
    return dataclasses.replace(asked, messages=turns, id=asked.id or prompt_id(turns))
