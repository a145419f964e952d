"""Why a row is set aside."""

from __future__ import annotations

import enum


class Reason(enum.Enum):
    """The value is its name in `counts()`."""

    NOT_JSON = "not_json"
    NO_OBJECT = "not_an_object"
    UNKNOWN_FORM = "unknown_form"
    MALFORMED = "malformed"  # a column holds another kind of thing than its name says
    NOT_TEXT = "not_text"  # half of a surrogate pair, or NUL: no tokenizer reads the one, no text holds the other
    NO_PROMPT = "no_prompt"
    NO_REPLY = "no_assistant_reply"  # a dialogue that does not end in an assistant's turn
    EMPTY_RESPONSE = "empty_response"
    IDENTICAL = "identical_responses"
    DIVERGING = "diverging_dialogues"  # they differ before the last reply: not two replies to one prompt
    NOTHING_RANKED = "nothing_ranked"  # fewer than two responses that were ranked or rated
    NO_VERDICT = "no_verdict"

    @property
    def damage(self) -> bool:
        """Whether it tells of a damaged row. The others occur in every large collection and say nothing of the file."""
        return self not in _ORDINARY


_ORDINARY = (Reason.EMPTY_RESPONSE, Reason.IDENTICAL, Reason.DIVERGING, Reason.NOTHING_RANKED, Reason.NO_VERDICT)


class Unusable(Exception):
    """A row that cannot be used; `detail` says what is wrong with it, the reader says where it stands."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail
