"""Conversations to imitate, and prompts alone."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench import Demonstration, Message, Prompt
from alignbench_data.columns import Fields, unpacked
from alignbench_data.content import conversation, dialogue, is_dialogue, joined, prompt, prompt_messages, reply
from alignbench_data.formats.form import Form, Record, Settings
from alignbench_data.reasons import Reason, Unusable


def asked_and_reply(fields: Fields) -> tuple[list[Message], str]:
    """The conversation and the reply: in columns of their own, or the reply as the last of the messages."""
    if "response" in fields:
        value = fields.get("response")
        return prompt_messages(fields), reply(value, fields.name("response"))
    turns = conversation(unpacked(fields.get("messages")), fields.name("messages"))
    if turns[-1].role != "assistant":
        raise Unusable(Reason.NO_REPLY, f"{fields.name('messages')!r} must end in an assistant's turn")
    return turns[:-1], turns[-1].content


def _imitated(fields: Fields, settings: Settings) -> list[Record]:
    turns, response = asked_and_reply(fields)
    asked = prompt(fields, turns, keep_id=settings.keep_ids)
    if not response.strip():
        raise Unusable(Reason.EMPTY_RESPONSE, "the response is empty")
    return [Demonstration(asked, response)]


def _dialogue(fields: Fields, settings: Settings) -> list[Record]:
    turns = dialogue(fields.get("text"), fields.name("text"))
    if turns[-1].role != "assistant" or not turns[-1].content:
        raise Unusable(Reason.NO_REPLY, "the dialogue must end in an assistant's turn")
    return [Demonstration(prompt(fields, joined(turns[:-1]), keep_id=settings.keep_ids), turns[-1].content)]


def _asked(fields: Fields, settings: Settings) -> list[Record]:
    """A prompt with its answer, which SFT may imitate, or a prompt alone."""
    turns = prompt_messages(fields)
    asked: Prompt = prompt(fields, turns, keep_id=settings.keep_ids)
    answer = asked.reference.answer if asked.reference else ""
    return [Demonstration(asked, answer)] if answer.strip() else [asked]


def _line(fields: Fields, settings: Settings) -> list[Record]:
    return [prompt(fields, conversation(fields.get("text"), fields.name("text")), keep_id=settings.keep_ids)]


def _ends_in_reply(fields: Fields, settings: Settings) -> bool:
    value = unpacked(fields.get("messages"))
    last = value[-1] if isinstance(value, list) and value else None
    who = (last.get("role") or last.get("from")) if isinstance(last, dict) else ""
    return str(who).lower() in ("assistant", "gpt", "chatgpt", "bot", "model")


_OF_A_PREFERENCE = ("chosen", "rejected", "responses", "scores", "ranks", "response_a", "response_b")


def _says_no_more(fields: Fields, settings: Settings) -> bool:
    """Half a preference is no prompt: it would be lost unnoticed."""
    return not any(role in fields for role in _OF_A_PREFERENCE)


class Demonstrations(Form):
    name = "demonstrations"
    needs = (("prompt", "input", "messages"), ("response",))

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _imitated(fields, settings)


class Conversations(Form):
    name = "conversations"
    needs = (("messages",),)

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _imitated(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _ends_in_reply(fields, settings)


class DialogueTexts(Form):
    name = "dialogue texts"
    needs = (("text",),)

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _dialogue(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return is_dialogue(fields.get("text"))


class Prompts(Form):
    name = "prompts"
    needs = (("prompt", "input", "messages"),)

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _asked(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _says_no_more(fields, settings)


class Lines(Form):
    name = "prompts, one a line"
    needs = (("text",),)

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _line(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _says_no_more(fields, settings) and not fields.there("prompt")
