"""One HH-RLHF row, two whole dialogues as text, to a prompt with two replies; or the reason why it cannot be used."""

from __future__ import annotations

import enum
import hashlib
import itertools
import json
import re
from dataclasses import dataclass

from alignbench import Message, Prompt

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Reason(enum.Enum):
    """Why a row is set aside. The value is its name in `counts()`."""

    NOT_TEXT = "not_text"  # half of a surrogate pair, as cutting a text in the middle of an emoji leaves: no tokenizer reads it
    NO_REPLY = "no_assistant_reply"  # a dialogue that does not end in an Assistant turn
    EMPTY_REPLY = "empty_reply"
    IDENTICAL = "identical_replies"
    DIVERGING = "diverging_dialogues"  # they differ before the last Assistant turn: not two replies to one prompt
    MALFORMED_PROMPT = "malformed_prompt"  # does not begin and end with a Human turn, or has an empty turn


@dataclass(frozen=True)
class Pair:
    """A person preferred `chosen` to `rejected` as the answer to `prompt`."""

    prompt: Prompt
    chosen: str
    rejected: str

    @property
    def prompt_words(self) -> int:
        return sum(len(message.content.split()) for message in self.prompt.messages)

    @property
    def response_words(self) -> int:
        return max(len(self.chosen.split()), len(self.rejected.split()))


def parse_row(chosen: str, rejected: str) -> Pair | Reason:
    """The pair of a row; the reasons are looked for in a fixed order, so that every row is counted once."""
    if not (_is_text(chosen) and _is_text(rejected)):
        return Reason.NOT_TEXT
    first, second = _turns(chosen), _turns(rejected)
    if not (_ends_in_reply(first) and _ends_in_reply(second)):
        return Reason.NO_REPLY
    if first == second:
        return Reason.IDENTICAL
    (*context, (_, chosen_reply)), (*other_context, (_, rejected_reply)) = first, second
    if not (chosen_reply and rejected_reply):
        return Reason.EMPTY_REPLY
    if context != other_context:
        return Reason.DIVERGING
    if not context or {context[0][0], context[-1][0]} != {"user"} or not all(content for _, content in context):
        return Reason.MALFORMED_PROMPT
    return Pair(_prompt(context), chosen_reply, rejected_reply)


def _is_text(written: str) -> bool:
    try:
        written.encode()
    except UnicodeEncodeError:
        return False
    return True


def _turns(dialogue: str) -> list[tuple[str, str]]:
    before, *rest = _TURN.split(dialogue)
    turns = [(_ROLES[name], content.strip()) for name, content in zip(rest[::2], rest[1::2], strict=True)]
    return [("", before.strip()), *turns] if before.strip() else turns  # text before the first turn belongs to nobody


def _ends_in_reply(turns: list[tuple[str, str]]) -> bool:
    return bool(turns) and turns[-1][0] == "assistant"


def _prompt(turns: list[tuple[str, str]]) -> Prompt:
    """Consecutive turns of one speaker become one message: many chat templates refuse roles that do not alternate."""
    messages = tuple(
        Message(role, "\n\n".join(content for _, content in group))
        for role, group in itertools.groupby(turns, key=lambda turn: turn[0])
    )
    digest = hashlib.sha256(json.dumps([[m.role, m.content] for m in messages]).encode()).hexdigest()
    return Prompt(id=f"hh-{digest[:16]}", messages=messages)
