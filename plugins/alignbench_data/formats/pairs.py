"""Pairs: chosen and rejected, as text, messages or dialogues, with the prompt beside them or inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignbench import Message, Ranking
from alignbench_data.columns import Fields, unpacked
from alignbench_data.content import (
    conversation,
    dialogue,
    has_turns,
    is_conversation,
    is_dialogue,
    joined,
    kind,
    prompt,
    prompt_messages,
    reply,
    text,
)
from alignbench_data.formats.form import Form, Record, Settings, annotator, number_of
from alignbench_data.reasons import Reason, Unusable

WORDS_OF_A_PROMPT = 5
"""Words that two replies do not begin with unless they repeat the prompt."""


def _dialogues(fields: Fields, settings: Settings) -> list[Ranking]:
    """Two whole dialogues that differ in the last reply (HH-RLHF, arXiv 2204.05862)."""
    chosen, rejected = (dialogue(fields.get(role), fields.name(role)) for role in ("chosen", "rejected"))
    return [_of_conversations(fields, settings, chosen, rejected, as_text=True)]


def _of_conversations(
    fields: Fields, settings: Settings, chosen: list[Message], rejected: list[Message], *, as_text: bool = False
) -> Ranking:
    """The reply that ends each; what comes before must be one conversation."""
    if not all(turns and turns[-1].role == "assistant" for turns in (chosen, rejected)):
        raise Unusable(Reason.NO_REPLY, "'chosen' and 'rejected' must end in an assistant's turn")
    if chosen[:-1] != rejected[:-1]:
        raise Unusable(Reason.DIVERGING, "the two dialogues differ before the last reply")
    if any(not turn.content for turn in chosen[:-1] if turn.role != "system"):
        raise Unusable(Reason.NO_PROMPT, "a turn of the dialogue is empty")
    asked = joined(chosen[:-1]) if as_text else chosen[:-1]
    return _pair(fields, settings, asked, chosen[-1].content, rejected[-1].content)


def _pair(fields: Fields, settings: Settings, asked: list[Message], chosen: str, rejected: str) -> Ranking:
    if not chosen.strip() or not rejected.strip():
        raise Unusable(Reason.EMPTY_RESPONSE, f"{'rejected' if chosen.strip() else 'chosen'!r} is empty")
    if chosen == rejected:
        raise Unusable(Reason.IDENTICAL, "'chosen' and 'rejected' are the same")
    return Ranking(
        prompt(fields, asked, keep_id=settings.keep_ids),
        (chosen, rejected),
        (0, 1),
        annotator=annotator(fields),
        scores=_scores(fields),
    )


def _scores(fields: Fields) -> tuple[float, ...]:
    """Ratings beside the pair, or its margin alone. Ratings that say the contrary of the pair are left out."""
    better, worse, margin = (number_of(fields, role) for role in ("chosen_score", "rejected_score", "margin"))
    if better is not None and worse is not None:
        return (better, worse) if better >= worse else ()
    return () if margin is None or margin < 0 else (margin, 0.0)


def _parse(fields: Fields, settings: Settings) -> list[Ranking]:
    chosen, rejected = (_value(fields, role) for role in ("chosen", "rejected"))
    if isinstance(chosen, list) and isinstance(rejected, list):
        if is_conversation(chosen) and is_conversation(rejected):
            return [_of_messages(fields, settings, chosen, rejected)]
        return [of_several(fields, settings, chosen, rejected)]
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        odd = "rejected" if isinstance(chosen, str) else "chosen"
        raise Unusable(
            Reason.MALFORMED,
            f"{fields.name(odd)!r} must be text or a list of messages, as the other is, not {kind(fields.get(odd))}",
        )
    text(chosen, fields.name("chosen")), text(rejected, fields.name("rejected"))
    if not any(fields.there(role) for role in ("prompt", "input", "messages")):
        if fields.asks:
            raise Unusable(Reason.NO_PROMPT, f"{fields.asks!r} is missing, which other rows have")
        if "prompt" in fields.said:  # whoever names it does not mean what both texts begin with
            raise Unusable(Reason.NO_PROMPT, f"data.columns.prompt={fields.name('prompt')} is no column")
        return [_inside(fields, settings, chosen, rejected)]
    asked = prompt_messages(fields)
    if asked and asked[-1].role == "assistant":  # the conversation as it went on, beside the two replies
        asked = asked[:-1]
    start = fields.get("prompt")
    if isinstance(start, str) and all(_repeats(start, reply) for reply in (chosen, rejected)):
        chosen, rejected = (reply[len(start) :].lstrip() for reply in (chosen, rejected))
    return [_pair(fields, settings, asked, chosen, rejected)]


def _repeats(asked: str, reply: str) -> bool:
    """Whether a text is the prompt and then the reply. A reply may begin with the words of a short prompt, as with a greeting: they are
    the prompt where a line or a colon ends them."""
    rest = reply[len(asked) :]
    if not reply.startswith(asked) or not asked.strip() or not rest.strip():
        return False
    between = asked[len(asked.rstrip()) :] + rest[: len(rest) - len(rest.lstrip())]
    ends = "\n" in between or asked.rstrip().endswith(":") or len(asked.split()) >= WORDS_OF_A_PROMPT
    return bool(between) and ends


def _value(fields: Fields, role: str) -> Any:
    value = fields.get(role)
    found = [value] if is_conversation([value]) else unpacked(value)
    return found if is_conversation(found) else value


def _inside(fields: Fields, settings: Settings, chosen: str, rejected: str) -> Ranking:
    """The prompt is what both texts begin with, up to a whole word. Dialogues, that would be those of another form: one of them has no
    reply."""
    if has_turns(chosen) or has_turns(rejected):
        role = "chosen" if is_dialogue(rejected) else "rejected"
        raise Unusable(Reason.NO_REPLY, f"{fields.name(role)!r} is no dialogue with a turn of 'Assistant:'")
    shared = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    while shared and not chosen[shared - 1].isspace():
        shared -= 1
    if not chosen[:shared].strip():
        raise Unusable(
            Reason.NO_PROMPT,
            "there is no prompt column, and 'chosen' and 'rejected' begin differently: name it by data.columns.prompt=<column>",
        )
    return _pair(fields, settings, [Message("user", chosen[:shared].strip())], chosen[shared:], rejected[shared:])


def _of_messages(fields: Fields, settings: Settings, chosen: list[Any], rejected: list[Any]) -> Ranking:
    """Replies alone after the prompt's messages, or whole conversations that hold it."""
    first, second = (
        conversation(turns, fields.name(role)) for turns, role in ((chosen, "chosen"), (rejected, "rejected"))
    )
    if first[0].role == "assistant" and any(role in fields for role in ("prompt", "input", "messages")):
        asked = prompt_messages(fields)
        first, second = [*asked, *first], [*asked, *second]
    return _of_conversations(fields, settings, first, second)


def of_several(fields: Fields, settings: Settings, chosen: Sequence[Any], rejected: Sequence[Any]) -> Ranking:
    """Several right responses and several wrong ones to one prompt."""
    good, bad = (
        [reply(one, fields.name(role)) for one in several]
        for several, role in ((chosen, "chosen"), (rejected, "rejected"))
    )
    if not good or not bad:
        raise Unusable(Reason.NOTHING_RANKED, f"{'rejected' if good else 'chosen'!r} holds no response")
    return Ranking(
        prompt(fields, prompt_messages(fields), keep_id=settings.keep_ids),
        (*good, *bad),
        (0,) * len(good) + (1,) * len(bad),
        annotator=annotator(fields),
    )


class Dialogues(Form):
    name = "dialogues"
    needs = (("chosen",), ("rejected",))

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _dialogues(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return is_dialogue(fields.get("chosen")) and is_dialogue(fields.get("rejected"))


class Pairs(Form):
    name = "pairs"
    needs = (("chosen",), ("rejected",))

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _parse(fields, settings)
