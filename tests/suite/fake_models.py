"""Models whose behaviour is known beforehand, as the Subject that an evaluation is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from alignbench import Generation, Judge, Likelihood, Prompt, Sampling, Subject

Reply = Callable[[Prompt], str]


class YesNoTokenizer:
    """One id a word."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, texts: Sequence[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [[self._id(word) for word in text.split()] for text in texts]}

    def _id(self, word: str) -> int:
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)


def generation(prompt: Prompt, response: str, index: int = 0) -> Generation:
    return Generation(prompt, index, response, len(response.split()), True, math.nan, math.nan, math.nan)


def fake_model(
    reply: Reply = lambda prompt: "",
    probability: Callable[[Prompt, str], float] = lambda prompt, word: 0.5,
    judge: Judge | None = None,
    asked: list[Prompt] | None = None,
) -> Subject:
    """Answers `reply(prompt)`; the one-word response `word` has the probability that is said. `asked` collects prompts."""
    tokenizer = YesNoTokenizer()

    def complete(prompts: Sequence[Prompt], n: int, sampling: Sampling) -> tuple[Generation, ...]:
        most = 96 if prompts and prompts[0].id.startswith(("social/", "refusals/")) else 32
        assert sampling.max_new_tokens and sampling.max_new_tokens <= most, "short answers keep a quick look quick"
        assert sampling.top_k == 1, "greedy: a question more takes no chance from another"
        if asked is not None:
            asked.extend(prompts)
        return tuple(generation(prompt, reply(prompt), i) for prompt in prompts for i in range(n))

    def likelihoods(prompts: Sequence[Prompt], responses: Sequence[Sequence[int]]) -> tuple[Likelihood, ...]:
        chances = [
            probability(p, " ".join(tokenizer.words[i] for i in r)) for p, r in zip(prompts, responses, strict=True)
        ]
        return tuple(Likelihood(math.log(chance), chance > 0.5) for chance in chances)

    return Subject(
        Path(), (), (), tokenizer, lambda p, n: (), lambda p, r: (),
        complete=complete, likelihoods=likelihoods, ordinary_text=True, judge=judge,
    )  # fmt: skip
