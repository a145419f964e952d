"""One response that was called good or bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignbench import Labelled
from alignbench_data.columns import Fields
from alignbench_data.content import prompt
from alignbench_data.formats.demonstrations import asked_and_reply
from alignbench_data.formats.form import Form, Record, Settings, is_empty
from alignbench_data.reasons import Reason, Unusable

_GOOD = {"true", "1", "1.0", "good", "yes", "desirable", "chosen", "positive", "up", "thumbs_up", "+1"}
_BAD = {"false", "0", "0.0", "bad", "no", "undesirable", "rejected", "negative", "down", "thumbs_down", "-1", "-1.0"}


def _parse(fields: Fields, settings: Settings) -> list[Labelled]:
    if "response" not in fields and "messages" not in fields:
        raise Unusable(Reason.EMPTY_RESPONSE, f"{fields.name('response')!r} is empty")
    turns, response = asked_and_reply(fields)
    if not response.strip():
        raise Unusable(Reason.EMPTY_RESPONSE, "the response is empty")
    good = _good(fields.get("label"), fields.name("label"))
    return [Labelled(prompt(fields, turns, keep_id=settings.keep_ids), response, good)]


def _good(value: Any, name: str) -> bool:
    if is_empty(value):
        raise Unusable(Reason.NO_VERDICT, f"{name!r} is empty")
    said = str(value).strip().lower()
    if said in _GOOD | _BAD:
        return said in _GOOD
    raise Unusable(Reason.MALFORMED, f"{name!r} must be true or false, good or bad, 1 or 0, not {str(value)[:40]!a}")


def _says_something(fields: Fields, settings: Settings) -> bool:
    return any(role in fields for role in ("response", "messages", "label"))


class Labels(Form):
    name = "labels"
    needs = (("response", "messages"), ("label",))
    empty = ("response", "messages", "label")

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _parse(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _says_something(fields, settings)
