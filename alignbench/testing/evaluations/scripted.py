"""Subjects and judges whose answers are written down."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from alignbench.contracts.subject import Subject
from alignbench.records import Generation, Likelihood, Prompt, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, EOS = 0, 1


class SignTokenizer:
    """One token for each sign of a text, so that any text can be asked; turns are written one under the other."""

    pad_token_id, eos_token_id = PAD, EOS
    name_or_path, chat_template = "scripted", "scripted"

    def __len__(self) -> int:
        return 5000

    def __call__(self, text: str | Sequence[str], add_special_tokens: bool = False, **options: Any) -> dict[str, Any]:
        rows = [[ord(sign) + 2 for sign in one] for one in ([text] if isinstance(text, str) else text)]
        return {"input_ids": rows[0] if isinstance(text, str) else rows}

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(i - 2) for i in ids if i > EOS)

    def apply_chat_template(self, turns: Sequence[Mapping[str, str]], **options: Any) -> str:
        text = "".join(f"[{turn['role']}] {turn['content']}\n" for turn in turns)
        if options.get("continue_final_message"):
            return text.removesuffix("\n")
        return text + "[assistant] " if options.get("add_generation_prompt") else text


def by_hash(prompt: Prompt, text: str) -> float:
    """A log-probability that follows no rule, from -3 to -1."""
    said = "\n".join(message.content for message in prompt.messages)
    return -1 - 2 * hashlib.sha256(f"{said}\n{text}".encode()).digest()[0] / 255


def scripted(
    subject: Subject, answers: Callable[[Prompt], str], likely: Callable[[Prompt, str], float] | None = None
) -> Subject:
    """The subject as one that reads ordinary text, and answers whatever else it is asked as `answers` says."""
    tokenizer = SignTokenizer()

    def complete(prompts: Sequence[Prompt], n: int, sampling: Sampling) -> tuple[Generation, ...]:
        unknown = (math.nan,) * 3
        said = [(prompt, i, answers(prompt)) for prompt in prompts for i in range(n)]
        return tuple(Generation(prompt, i, text, len(text), True, *unknown) for prompt, i, text in said)

    def likelihoods(
        prompts: Sequence[Prompt], responses: Sequence[Sequence[int]], counted: Sequence[int] | None = None
    ) -> tuple[Likelihood, ...]:
        texts = [tokenizer.decode(ids) for ids in responses]
        return tuple(Likelihood((likely or by_hash)(*row), False) for row in zip(prompts, texts, strict=True))

    return dataclasses.replace(
        subject,
        tokenizer=cast("PreTrainedTokenizerBase", tokenizer),
        ordinary_text=True,
        complete=complete,
        likelihoods=likelihoods,
    )


class LongerIsBetter:
    """A judge: one point for each sign of a response."""

    name = "scripted"

    def score(self, generations: Sequence[Generation]) -> tuple[float, ...]:
        return tuple(float(len(g.response)) for g in generations)

    def compare(self, first: Sequence[Generation], second: Sequence[Generation]) -> tuple[float, ...]:
        pairs = zip(first, second, strict=True)
        return tuple(
            0.5 * ((len(a.response) > len(b.response)) + (len(a.response) >= len(b.response))) for a, b in pairs
        )
