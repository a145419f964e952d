"""What a chat template makes of a question and its answer: looked at once, before any weight is read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from alignbench import UserError, pretrained
from alignbench_hf.chat.templates import name_of

log = logging.getLogger(__name__)

QUESTION, ANSWER = "How many legs has a spider?", "It has eight."
LEADS = ("", "\n")
THINK, THOUGHT = "<think>", "</think>"


@dataclass(frozen=True)
class Turn:
    """`end`: the token that the template writes after an answer, None where it writes none. `lead`: the text after which a
    response has the tokens that it has in a conversation; a tokenizer may mark the beginning of a text. `thinks`: whether the
    template knows reasoning traces; `opened`: whether its prompts end within one, so that responses begin there."""

    end: int | None
    lead: str
    thinks: bool
    opened: bool


def look_at(tokenizer: PreTrainedTokenizerBase, remedy: str) -> Turn:
    """Raises UserError for a template that loses texts or writes no header before an answer; warns where a prompt and its answer
    are not what it writes of the whole conversation. `remedy`: what to do about a wrong one."""
    name = f"The chat template of {name_of(tokenizer)}"
    asked = {"role": "user", "content": QUESTION}
    try:
        prompt = tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
        bare = tokenizer.apply_chat_template([asked], tokenize=False)
    except Exception as error:  # a template fails in whatever way its expressions do
        raise UserError(f"{name} cannot write one user message ({pretrained.one_line(error)}): {remedy}.") from error
    if prompt != tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True):
        raise UserError(f"{name} writes another prompt each time that it is asked: {remedy}.")
    if QUESTION not in prompt:
        raise UserError(f"{name} loses the user's text (its prompt is {prompt[:80]!r}): {remedy}.")
    thinks, opened = THOUGHT in str(tokenizer.chat_template), prompt.rfind(THINK) > prompt.rfind(THOUGHT)
    try:
        whole = tokenizer.apply_chat_template([asked, {"role": "assistant", "content": ANSWER}], tokenize=False)
    except Exception as error:
        log.warning(
            "%s writes no answers (%s): whether they end as it wants is not known.", name, pretrained.one_line(error)
        )
        return Turn(None, "", thinks, opened)
    if ANSWER not in whole:
        raise UserError(f"{name} loses the assistant's text: {remedy}.")
    before, _, after = whole.rpartition(ANSWER)
    if bare == prompt and (header := before[len(prompt) :].strip() if before.startswith(prompt) else ""):
        raise UserError(f"{name} writes {header!r} before an answer, but not at the end of a prompt: {remedy}.")
    end = _first_control(tokenizer, after)
    answer = _ids(tokenizer, whole)[len(_ids(tokenizer, prompt)) :]
    rows = {lead: after_lead(tokenizer, lead, [ANSWER])[0] for lead in LEADS}
    lead = next((lead for lead, row in rows.items() if answer[: len(row)] == row), None)
    if lead is None or (end is not None and answer[len(rows[lead]) : len(rows[lead]) + 1] != [end]):
        _tell(tokenizer, name, prompt, before, after)
    return Turn(end, lead or "", thinks, opened)


def after_lead(tokenizer: PreTrainedTokenizerBase, lead: str, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts as they are after `lead`, of each by itself where its beginning would merge with it. Control tokens in
    a text are read as text."""
    as_text = {"add_special_tokens": False, "split_special_tokens": True}
    alone: list[list[int]] = tokenizer(list(texts), **as_text)["input_ids"] if texts else []
    if not lead or not texts:
        return alone
    before = _ids(tokenizer, lead)
    rows = tokenizer([lead + text for text in texts], **as_text)["input_ids"]
    return [row[len(before) :] if row[: len(before)] == before else own for row, own in zip(rows, alone, strict=True)]


def _first_control(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The first token of `text` that stands for no text. Tokens for white space (as Gemma's) are text."""
    control = {id for token, id in tokenizer.added_tokens_encoder.items() if not token.isspace()}
    return next((id for id in _ids(tokenizer, text) if id in control), None)


def _tell(tokenizer: PreTrainedTokenizerBase, name: str, prompt: str, before: str, after: str) -> None:
    """Says aloud how a prompt with its answer differs from the template's own conversation."""
    same = next(
        (i for i, (a, b) in enumerate(zip(prompt, before, strict=False)) if a != b), min(len(prompt), len(before))
    )
    advice = ""
    if THOUGHT in before[same:] and "enable_thinking" in str(tokenizer.chat_template):
        advice = " With model.template_kwargs.enable_thinking=false prompts end with it too."
    if prompt[same:] or before[same:]:
        log.warning(
            "%s: before an answer its conversations have %r where its prompts end with %r. Responses begin where prompts end.%s",
            name, before[same:], prompt[same:], advice,
        )  # fmt: skip
    else:
        log.warning(
            "%s: the tokens of an answer differ where it stands in a conversation (%r follows it).", name, after
        )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Sequence[int]:
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
