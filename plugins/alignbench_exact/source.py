"""The exact world as a data source: contexts, a reward for every response, and a demonstrator."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from alignbench import DataSource, Demonstration, Message, Prompt, Ranking, Seeds, Split, Verdict
from alignbench_exact.config import ExactDataConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LETTERS = "abcdefghijkl"
RANKED = 4  # responses of a recorded ranking
DEMONSTRATOR_SD = 0.5  # of the demonstrator's logits: the reference is uneven, and nothing in it is rare
END = ""


class ExactData(DataSource):
    """Built with: seeds. They draw the demonstrations and recorded rankings; rewards follow from `world_seed` alone.

    A response is its words and whether it ended; it has a normal reward of its own, of mean 0 and sd 1."""

    known = "alignbench_exact.known:exact"

    def __init__(self, config: ExactDataConfig, *, seeds: Seeds) -> None:
        self.config, self._seeds = config, seeds
        self._world = Seeds(config.world_seed).child("exact")
        self.letters = tuple(LETTERS[: config.letters])
        texts = [f"{first} {second}" for first in self.letters for second in self.letters]
        self._rewards: dict[tuple[str, str, bool], float] = {}
        self._contexts = tuple(self._world.python("contexts").sample(texts, config.contexts))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        from alignbench_exact.tokenizer import build_tokenizer  # here: transformers takes seconds to import

        return build_tokenizer(self.letters)

    def prompts(self, split: Split) -> tuple[Prompt, ...]:
        return self._evaluation_prompts if split is Split.EVALUATION else self._train_prompts

    def demonstrations(self) -> tuple[Demonstration, ...]:
        """Responses of a demonstrator who has a distribution of its own over the next word; the longest are cut off."""
        rng, found = self._seeds.python("demonstrator"), []
        for prompt in itertools.cycle(self._train_prompts):
            words = self._demonstrate(prompt, rng)
            text = " ".join(words)
            if (text, len(words) < self.config.length) not in prompt.info["uncovered"]:
                found.append(Demonstration(prompt, text))
            if len(found) == self.config.demonstrations:
                break
        return tuple(found)

    def rankings(self) -> tuple[Ranking, ...]:
        """Covered responses, drawn evenly and ranked with Gumbel noise on their rewards."""
        rng, found = self._seeds.python("recorded rankings"), []
        for prompt in islice(itertools.cycle(self._train_prompts), self.config.recorded_rankings):
            everything = [r for r in self.responses() if r not in prompt.info["uncovered"]]
            drawn = rng.sample(everything, min(RANKED, len(everything)))
            noisy = [self.reward(prompt, text, finished=end) - math.log(-math.log(rng.random())) for text, end in drawn]
            ranks = tuple(sum(other > score for other in noisy) for score in noisy)
            found.append(Ranking(prompt, tuple(t for t, _ in drawn), ranks, tuple(end for _, end in drawn)))
        return tuple(found)

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict:
        return Verdict(self.reward(prompt, response, finished=finished))

    def counts(self) -> Mapping[str, int]:
        return {"contexts": len(self._contexts), "responses": len(self.responses())}

    def reward(self, prompt: Prompt, response: str, *, finished: bool) -> float:
        known = (prompt.text, response, finished)
        if known not in self._rewards:  # drawn once: seeding a generator takes longer than all the rest
            self._rewards[known] = self._world.python(f"reward/{prompt.text}/{response}/{finished}").gauss(0.0, 1.0)
        return self._rewards[known]

    def responses(self) -> tuple[tuple[str, bool], ...]:
        """Every response: its words, and whether it ended by itself."""
        found: list[tuple[str, bool]] = []
        prefixes: list[tuple[str, ...]] = [()]
        for _ in range(self.config.length):
            found += [(" ".join(prefix), True) for prefix in prefixes]
            prefixes = [(*prefix, letter) for prefix in prefixes for letter in self.letters]
        return tuple(found + [(" ".join(prefix), False) for prefix in prefixes])

    def _demonstrate(self, prompt: Prompt, rng: random.Random) -> list[str]:
        words: list[str] = []
        while len(words) < self.config.length:
            own = self._world.python(f"demonstrator/{prompt.text}/{' '.join(words)}")
            weights = [math.exp(own.gauss(0.0, DEMONSTRATOR_SD)) for _ in range(len(self.letters) + 1)]
            (word,) = rng.choices((*self.letters, END), weights)
            if word == END:
                break
            words.append(word)
        return words

    @cached_property
    def _train_prompts(self) -> tuple[Prompt, ...]:
        return self._asked("train", self.config.train_prompts)

    @cached_property
    def _evaluation_prompts(self) -> tuple[Prompt, ...]:
        return self._asked("evaluation", len(self._contexts))

    def _asked(self, kind: str, number: int) -> tuple[Prompt, ...]:
        infos = [
            {"length": self.config.length, "beta": self.config.beta, "uncovered": self._uncovered(text)}
            for text in self._contexts
        ]
        asked = itertools.cycle(zip(self._contexts, infos, strict=True))
        return tuple(
            Prompt(f"{kind}/{index:04d}", (Message("user", text),), cluster=text, info=info)
            for index, (text, info) in enumerate(islice(asked, number))
        )

    def _uncovered(self, context: str) -> frozenset[tuple[str, bool]]:
        """The responses that neither demonstrations nor recorded rankings may show."""
        drawn = ((r, self._world.python(f"uncovered/{context}/{r}").random()) for r in self.responses())
        return frozenset(response for response, uniform in drawn if uniform < self.config.uncovered)
