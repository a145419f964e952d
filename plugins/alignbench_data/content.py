"""What stands in a column, as text and messages; and the prompt that they make."""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignbench import Message, Prompt
from alignbench_data.columns import Fields
from alignbench_data.reasons import Reason, Unusable
from alignbench_data.references import reference

SPEAKERS = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
"""What data sets call those who speak."""
_TURN = re.compile(r"\n\n(Human|Assistant|System):")
_MARKED_TURN = re.compile(r"\s*### (Human|Assistant|System):")
_RESPONSE_KEYS = ("response", "text", "content", "completion", "answer", "generation", "summary")


def text(value: Any, name: str) -> str:
    """`value`, which stands under `name`, if it is text that a tokenizer reads."""
    if not isinstance(value, str):
        if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
            return _parts(value, name)
        raise Unusable(Reason.MALFORMED, f"{name!r} must be text, not {kind(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half, near = value[error.start], value[max(error.start - 20, 0) : error.start + 20]
            detail = f"{half!a} is half of a surrogate pair, which no tokenizer reads: {near!a}"
            raise Unusable(Reason.NOT_TEXT, detail) from None
    if "\0" in value:
        raise Unusable(Reason.NOT_TEXT, f"{name!r} holds a NUL character")
    return value


def _parts(value: Sequence[Mapping[str, Any]], name: str) -> str:
    """Content in parts, as APIs write it."""
    for part in value:
        if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            raise Unusable(Reason.NOT_TEXT, f"{name!r} holds {str(part.get('type'))[:40]!r}, which is no text")
    return "".join(text(part["text"], name) for part in value)


def kind(value: Any) -> str:
    """What a value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def is_conversation(value: Any) -> bool:
    """Whether it is a list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(m, Mapping) and _speaker(m) for m in value)


def _speaker(message: Mapping[str, Any]) -> Any:
    return message.get("role") or message.get("from")


def messages(value: Any, name: str) -> list[Message]:
    """A list of messages, under the names that people give their parts."""
    if not isinstance(value, list) or not value:
        raise Unusable(Reason.MALFORMED, f"{name!r} must be a list with at least one message, not {kind(value)}")
    return [_message(given, name) for given in value]


def _message(given: Any, name: str) -> Message:
    if isinstance(given, Mapping):
        said = next((given[key] for key in ("content", "value", "text") if given.get(key) is not None), None)
        speaker = SPEAKERS.get(str(_speaker(given)).lower())
        if speaker and isinstance(said, (str, list)):
            return Message(speaker, text(said, name) if said else "")
    raise Unusable(
        Reason.MALFORMED,
        f"each message needs a 'role' (system, user, assistant) and a 'content' that is text: see {name!r}",
    )


def is_dialogue(value: Any) -> bool:
    """Whether a text is a dialogue with the names of who speaks (arXiv 2204.05862)."""
    return isinstance(value, str) and "Human:" in value and "Assistant:" in value and len(_turns(value)) > 4


def has_turns(value: str) -> bool:
    """Whether somebody speaks in a text who is named as in dialogues."""
    return "Human:" in value and len(_turns(value)) > 1


def _turns(value: str) -> list[str]:
    """What stands before the first turn; then the name and the words of each."""
    if "### Human:" in value:
        return _MARKED_TURN.split(value)
    return _TURN.split("\n\n" + value.lstrip())


def dialogue(value: str, name: str) -> list[Message]:
    """The turns of such a text. What stands before the first is the system's."""
    before, *rest = _turns(text(value, name))
    turns = [Message(SPEAKERS[who.lower()], said.strip()) for who, said in zip(rest[::2], rest[1::2], strict=True)]
    return [Message("system", before.strip()), *turns] if before.strip() else turns


def joined(turns: Iterable[Message]) -> list[Message]:
    """Consecutive turns of one speaker as one message: many chat templates refuse roles that do not alternate."""
    return [
        Message(role, "\n\n".join(message.content for message in group))
        for role, group in itertools.groupby(turns, key=lambda message: message.role)
    ]


def conversation(value: Any, name: str) -> list[Message]:
    """A prompt as a column holds it: a text, a dialogue as text that waits for the assistant, or messages."""
    if isinstance(value, str):
        if is_dialogue(value) and value.rstrip().endswith("Assistant:"):
            turns = joined(message for message in dialogue(value, name) if message.content)
            if not turns:
                raise Unusable(Reason.NO_PROMPT, f"nobody says anything in {name!r}")
            return turns
        return [Message("user", text(value, name))]
    if isinstance(value, list):
        return messages(value, name)
    raise Unusable(Reason.MALFORMED, f"{name!r} must be text or a list of messages, not {kind(value)}")


def prompt_messages(fields: Fields) -> list[Message]:
    """The conversation that a row's responses answer, from its prompt, its instruction and input, or its messages."""
    if "prompt" in fields:
        asked = conversation(fields.get("prompt"), fields.name("prompt"))
        if "input" in fields and (more := text(_input(fields), fields.name("input"))).strip():
            return [*asked[:-1], Message(asked[-1].role, f"{asked[-1].content}\n\n{more}")]
        return asked
    if "input" in fields:
        return conversation(_input(fields), fields.name("input"))
    if "messages" in fields:
        return conversation(fields.get("messages"), fields.name("messages"))
    empty = [fields.name(role) for role in ("prompt", "input", "messages") if fields.there(role)]
    raise Unusable(Reason.NO_PROMPT, f"{empty[0]!r} is empty" if empty else "either 'prompt' or 'messages' is needed")


def _input(fields: Fields) -> Any:
    """What goes with an instruction; a list of texts, such as the tests of a program, as lines."""
    value = fields.get("input")
    return "\n".join(value) if isinstance(value, list) and all(isinstance(part, str) for part in value) else value


def reply(value: Any, name: str) -> str:
    """A response as text, as a message, as messages that end in it, or as an object that holds it."""
    if is_conversation(value):
        *before, last = messages(value, name)
        if before or last.role != "assistant":
            raise Unusable(Reason.MALFORMED, f"{name!r} must hold one message of the assistant")
        return last.content
    if isinstance(value, Mapping):
        key = next((key for key in _RESPONSE_KEYS if key in value), None)
        if key is None:
            raise Unusable(Reason.MALFORMED, f"no text in an object of {name!r} (keys: {', '.join(map(str, value))})")
        return text(value[key], name)
    return text(value, name)


def prompt(fields: Fields, asked: Iterable[Message], *, cluster: str = "", keep_id: bool = False) -> Prompt:
    """A prompt with what the row says of it. Its id is its content's, so that one conversation has one id everywhere; `keep_id`:
    the row's own, where it has one."""
    turns = list(asked)
    if "system" in fields and not any(turn.role == "system" for turn in turns):
        said = text(fields.get("system"), fields.name("system"))
        turns = [Message("system", said), *turns] if said.strip() else turns
    if not turns or turns[-1].role != "user":
        raise Unusable(Reason.NO_PROMPT, "the last message must be the user's: it is what the responses answer")
    if not turns[-1].content.strip():
        raise Unusable(Reason.NO_PROMPT, "the prompt is empty")
    own = fields.get("id") if keep_id else None
    if own is not None and not isinstance(own, (str, int)):
        raise Unusable(Reason.MALFORMED, "'id' must be text")
    subset = fields.get("subset")
    return Prompt(
        id=str(own) if own not in (None, "") else prompt_id(turns),
        messages=tuple(turns),
        cluster=cluster,
        reference=reference(fields),
        subset=str(subset) if isinstance(subset, (str, int)) and len(str(subset)) <= 80 else "",
    )


def prompt_id(turns: Iterable[Message]) -> str:
    return "prompt-" + hashlib.sha256(repr([(m.role, m.content) for m in turns]).encode()).hexdigest()[:16]


def sameness(asked: Prompt) -> str:
    """A key that prompts share whose words are the same, or that are parts of one conversation: they are never split."""
    return asked.cluster or same_words(asked.messages)


def same_words(turns: Iterable[Message]) -> str:
    """One for all whose words are the same, whatever their spaces, capitals and composed characters are."""
    words = [(m.role, " ".join(unicodedata.normalize("NFKC", m.content).casefold().split())) for m in turns]
    return hashlib.sha256(repr(words).encode()).hexdigest()
