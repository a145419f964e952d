"""Token ids of prompts and responses, and texts of token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alignbench import Message, Prompt, UserError, pretrained
from alignbench_hf.chat.templates import name_of
from alignbench_hf.chat.turn import THINK, THOUGHT, Turn, after_lead, look_at

TEMPLATE_FILE = "chat_template.jinja"


class Chat:
    """A tokenizer with its chat template, and what ends a response under them.

    `ends` are all tokens that end one; the first is the one that the template itself writes after an answer, and that
    responses given as text end with (the tokenizer's EOS where the template writes none)."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stops: Sequence[int] = (),
        trusted: bool = False,
        strip_thinking: bool | None = None,
        remedy: str = "its tokenizer needs a right one",
    ) -> None:
        """`stops`: what ends a response beside the tokenizer's EOS. `trusted`: the template was chosen by the user, so that what
        it ends an answer with is an end; else the model must know that token as one."""
        name = name_of(tokenizer)
        if not tokenizer.chat_template:
            raise UserError(f"The tokenizer of {name} has no chat template: {remedy}.")
        stops = [id for id in (tokenizer.eos_token_id, *stops) if id is not None]
        if tokenizer.pad_token_id is None or not stops:
            raise UserError(
                f"The tokenizer of {name} lacks an EOS or a padding token: {json.dumps(tokenizer.special_tokens_map)}."
            )
        self.tokenizer, self.turn = tokenizer, look_at(tokenizer, remedy)
        self.ends = _ends(tokenizer, self.turn, stops, trusted, remedy)
        if self.ends[0] == tokenizer.pad_token_id:
            raise UserError(
                f"The tokenizer of {name} pads with what ends a turn ({tokenizer.pad_token!r}): they must differ."
            )
        self._strip = self.turn.thinks if strip_thinking is None else strip_thinking
        self._known: dict[tuple[Message, ...], list[int]] = {}

    def prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt. Remembered: a run meets the same prompt many times and the template engine is slow.

        Only the template writes control tokens: those in somebody's text are read as text."""
        if prompt.messages not in self._known:
            if not prompt.messages or not prompt.text.strip():
                raise UserError(f"Prompt {prompt.id!r} is empty.")
            try:
                ids = self.tokenizer.apply_chat_template(
                    [{"role": m.role, "content": m.content} for m in prompt.messages],
                    add_generation_prompt=True,
                    return_dict=False,
                    sanitize_control_tokens=True,
                )
            except Exception as error:  # templates raise errors of their own, as for a system message
                roles = ", ".join(message.role for message in prompt.messages)
                raise UserError(
                    f"The chat template of {name_of(self.tokenizer)} cannot write prompt {prompt.id!r} (messages: {roles}): "
                    f"{pretrained.one_line(error).rstrip('.')}. Leave such prompts out, or choose another template."
                ) from error
            self._known[prompt.messages] = ids
        return self._known[prompt.messages]

    def responses(self, texts: Sequence[str], finished: Sequence[bool]) -> list[list[int]]:
        """Token ids of responses, with the end of a turn where they finished. Control tokens in a text are read as text."""
        try:
            rows = after_lead(self.tokenizer, self.turn.lead, texts)
        except TypeError as error:  # half of a surrogate pair, say
            odd = next((text for text in texts if not _is_text(text)), "")
            raise UserError(f"The response {odd[:40]!r} is no Unicode text: leave it out of the data.") from error
        return [[*row, self.ends[0]] if end else row for row, end in zip(rows, finished, strict=True)]

    def texts(self, rows: Sequence[Sequence[int]]) -> tuple[str, ...]:
        """What responses say: without control tokens, and without a reasoning trace where those are left out."""
        said = self.tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=True)
        return tuple(without_thinking(text, opened=self.turn.opened) for text in said) if self._strip else tuple(said)

    def fingerprint(self) -> str:
        """Of the template: a file of that name may change, and an argument's default with the library."""
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()[:8]

    def check_saved(self, folder: Path) -> None:
        """Raises UserError where weights were trained under another template than this one."""
        path = folder / TEMPLATE_FILE
        if path.is_file() and path.read_text(encoding="utf-8") != str(self.tokenizer.chat_template):
            raise UserError(
                f"The weights in {folder} were trained under another chat template ({path}): choose it by "
                "model.chat_template=, or check model.template_kwargs and model.template_date."
            )


def _ends(
    tokenizer: PreTrainedTokenizerBase, turn: Turn, stops: Sequence[int], trusted: bool, remedy: str
) -> tuple[int, ...]:
    end = stops[0] if turn.end is None else turn.end
    if end not in stops and not trusted:
        written, known = tokenizer.convert_ids_to_tokens([end])[0], tokenizer.convert_ids_to_tokens(list(stops))
        raise UserError(
            f"The chat template of {name_of(tokenizer)} ends an answer with {written!r}, and the model stops at "
            f"{', '.join(map(repr, known))}: name it in the eos_token_id of its generation_config.json, or {remedy}."
        )
    return tuple(dict.fromkeys((end, *stops)))


def without_thinking(text: str, *, opened: bool = False) -> str:
    """What stands after a reasoning trace; nothing where it was cut off within one. `opened`: the prompt began it."""
    _, mark, after = text.rpartition(THOUGHT)
    if mark:
        return after.lstrip()
    return "" if opened or text.lstrip().startswith(THINK) else after


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def token_ids(chat: Chat, tokens: Sequence[str]) -> Tensor:
    """Ids of tokens by name. Raises UserError for one that the tokenizer does not have, or that must stay possible."""
    known = chat.tokenizer.get_vocab()
    for token in tokens:
        if token not in known:
            raise UserError(f"model.suppress_tokens: {token!r} is no token of this model's tokenizer.")
        if known[token] == chat.ends[0]:
            raise UserError(f"model.suppress_tokens: without {token!r} no response could end.")
    return torch.tensor([known[token] for token in tokens], dtype=torch.long)


def pad(rows: Sequence[Sequence[int]], value: int, device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    """Rows of different length -> ids and mask, [B, longest] (at least one column)."""
    width = max([len(row) for row in rows] + [1])
    ids = torch.full((len(rows), width), value, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        if row:
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = torch.tensor(row), True
    return ids.to(device), mask.to(device)
