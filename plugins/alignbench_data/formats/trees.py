"""Trees of messages whose replies were ranked (OpenAssistant, arXiv 2304.07327), whole or as one row a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from alignbench import Demonstration, Message, Ranking
from alignbench_data.columns import Fields
from alignbench_data.content import SPEAKERS, kind, prompt, same_words, text
from alignbench_data.formats.form import Form, Record, Settings
from alignbench_data.reading.rows import Row
from alignbench_data.reasons import Reason, Unusable

_FLAT = frozenset(("message_id", "parent_id", "text", "role"))
_DEEPEST = 200


def is_flat(values: Any) -> bool:
    """Whether a row is one message of a tree."""
    return isinstance(values, Mapping) and values.keys() >= _FLAT


def trees(rows: Iterable[Row]) -> Iterator[Row]:
    """Whole trees of such rows; each stands where its first message does. A message whose parent is not there is left out with
    what hangs on it."""
    made = {str(row.values["message_id"]): (row, {**row.values, "replies": []}) for row in rows}
    roots = []
    for row, message in made.values():
        parent = message.get("parent_id")
        if parent is None or parent == "":
            roots.append((row, message))
        elif str(parent) in made:
            made[str(parent)][1]["replies"].append(message)
    for row, message in roots:
        yield Row(row.file, row.unit, row.number, {**row.values, "prompt": message})


def _parse(fields: Fields, settings: Settings) -> list[Record]:
    root = fields.get("prompt")
    found: list[Record] = []
    waiting: list[tuple[list[Message], Mapping[str, Any]]] = [([], root)]
    while waiting:
        path, message = waiting.pop()
        if len(path) >= _DEEPEST:
            raise Unusable(Reason.MALFORMED, f"a tree deeper than {_DEEPEST} messages")
        turns = [*path, _said(message)]
        replies = message.get("replies") or []
        if not isinstance(replies, list):
            raise Unusable(Reason.MALFORMED, f"'replies' must be a list of messages, not {kind(replies)}")
        kept = [one for one in replies if _is_good(one)]
        waiting += [(turns, one) for one in reversed(kept)]
        if turns[-1].role == "user" and turns[-1].content.strip():
            found += _of_replies(fields, settings, turns, [one for one in kept if _said(one).role == "assistant"])
    if not found:
        raise Unusable(Reason.NOTHING_RANKED, "no message of this tree has a reply")
    return found


def _said(message: Any) -> Message:
    role = SPEAKERS.get(str(message.get("role")).lower()) if isinstance(message, Mapping) else None
    if role is None:
        raise Unusable(Reason.MALFORMED, "each message of a tree needs a 'role' (prompter or assistant) and a 'text'")
    return Message(role, text(message.get("text"), "text"))


def _is_good(message: Any) -> bool:
    if not isinstance(message, Mapping):
        raise Unusable(Reason.MALFORMED, f"a message of a tree must be an object, not {kind(message)}")
    return not message.get("deleted") and message.get("review_result") is not False


def _of_replies(fields: Fields, settings: Settings, turns: list[Message], replies: list[Any]) -> list[Record]:
    """A ranking of those that have a rank; one reply alone is a demonstration."""
    asked = prompt(fields, turns, cluster=same_words(turns[:1]))  # all that grew from one question stays on one side
    ranked = [(one["rank"], _said(one).content) for one in replies if type(one.get("rank")) is int]
    ranked = [(rank, said) for rank, said in ranked if said.strip()]
    if len(ranked) >= 2:
        order = sorted({rank for rank, _ in ranked})
        return [Ranking(asked, tuple(said for _, said in ranked), tuple(order.index(rank) for rank, _ in ranked))]
    first = next((said for one in replies if (said := _said(one).content).strip()), "")
    return [Demonstration(asked, first)] if first else []


def _is_tree(value: Any) -> bool:
    return isinstance(value, Mapping) and "replies" in value and "text" in value


class Trees(Form):
    name = "message trees"
    needs = (("prompt",),)

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _parse(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _is_tree(fields.get("prompt"))
