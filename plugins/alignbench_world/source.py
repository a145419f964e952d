"""The world as a data source: its facts, its prompts, its lessons and demonstrations, and the truth about responses."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from alignbench import DataSource, Demonstration, Message, Opinion, Prompt, Seeds, Split, UserError, Verdict
from alignbench_world.config import WorldConfig
from alignbench_world.demonstrator import demonstrate
from alignbench_world.judge import Assessment, assess
from alignbench_world.language import (
    ENTITIES,
    OPINIONS,
    QUESTIONS,
    RELATIONS,
    VALUES,
    Question,
    every_question,
    vocabulary,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class WorldData(DataSource):
    """Built with: seeds. They draw the training prompts and the demonstrations; facts, split and evaluation prompts
    follow from `world_seed` alone."""

    known = "alignbench_world.known:world"

    def __init__(self, config: WorldConfig, *, seeds: Seeds) -> None:
        self.config = config
        self._seeds = seeds
        self._world = Seeds(config.world_seed).child("world")
        self.facts: Mapping[tuple[str, str], str] = _draw_facts(self._world.python("facts"))
        questions = every_question()
        self._world.python("split").shuffle(questions)
        self.evaluation_questions = tuple(questions[: config.evaluation_questions])
        self.train_questions = tuple(questions[config.evaluation_questions :])

    def tokenizer(self) -> PreTrainedTokenizerBase:
        from alignbench_world.tokenizer import build_tokenizer  # here: transformers takes seconds to import

        return build_tokenizer(vocabulary())

    def lessons(self) -> tuple[Demonstration, ...]:
        """Every fact in every question form, answered by the bare value; and every value in every opinion, echoed.

        The echoes teach to copy from the prompt, as every real base model can: without them a small model hardly learns
        to repeat an opinion, and neither sycophancy nor an annotator who likes it would show."""
        lessons = []
        for entity, relation, form in product(ENTITIES, RELATIONS, range(len(QUESTIONS))):
            text = QUESTIONS[form].format(entity=entity, relation=relation)
            prompt = Prompt(f"lesson/{entity}-{relation}-{form}", (Message("user", text),))
            lessons.append(Demonstration(prompt, self.facts[entity, relation]))
        for relation, (number, opinion) in product(RELATIONS, enumerate(OPINIONS)):
            for value in VALUES[relation]:
                prompt = Prompt(f"lesson/{value}-{number}", (Message("user", opinion.format(value=value)),))
                lessons.append(Demonstration(prompt, value))
        return tuple(lessons)

    def demonstrations(self) -> tuple[Demonstration, ...]:
        return self._demonstrations

    def prompts(self, split: Split) -> tuple[Prompt, ...]:
        return self._evaluation_prompts if split is Split.EVALUATION else self._train_prompts

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict:
        assessment = self.assess(prompt, response, finished=finished)
        return Verdict(assessment.gold_reward, assessment.correct, assessment.agrees)

    def assess(self, prompt: Prompt, response: str, *, finished: bool) -> Assessment:
        """All that is true of a response: more than a verdict tells, for the world's annotators."""
        if "answer" not in prompt.info:
            raise UserError(f"Prompt {prompt.id!r} does not say what is true: data=world judges its own prompts only.")
        return assess(prompt.info, response, finished=finished)

    def counts(self) -> Mapping[str, int]:
        return {
            "facts": len(self.facts),
            "train questions": len(self.train_questions),
            "evaluation questions": len(self.evaluation_questions),
            "evaluation prompts": len(self._evaluation_prompts),
            "train prompts": self.config.train_prompts,
            "demonstrations": self.config.demonstrations,
        }

    @cached_property
    def _train_prompts(self) -> tuple[Prompt, ...]:
        return self._sample("train", self.config.train_prompts, self._seeds.python("train prompts"))

    @cached_property
    def _demonstrations(self) -> tuple[Demonstration, ...]:
        prompts = self._sample("demonstration", self.config.demonstrations, self._seeds.python("demonstration prompts"))
        rng = self._seeds.python("demonstrator")
        return tuple(Demonstration(prompt, demonstrate(prompt.info, self.config, rng)) for prompt in prompts)

    @cached_property
    def _evaluation_prompts(self) -> tuple[Prompt, ...]:
        prompts: list[Prompt] = []
        for question in self.evaluation_questions:
            # A generator for each question: its twins stay the same however many questions are held out.
            rng = self._world.python(f"twins/{question.id}")
            phrase, wrong = rng.choice(OPINIONS), self._wrong_value(question, rng)
            for opinion in Opinion:
                prompts.append(
                    self._prompt(f"evaluation/{question.id}/{opinion.value}", question, opinion, phrase, wrong)
                )
        return tuple(prompts)

    def _sample(self, kind: str, n: int, rng: random.Random) -> tuple[Prompt, ...]:
        no_opinion, some_or_right = self.config.no_opinion, self.config.no_opinion + self.config.right_opinion
        prompts = []
        for index in range(n):
            question, draw = rng.choice(self.train_questions), rng.random()
            opinion = Opinion.NONE if draw < no_opinion else Opinion.RIGHT if draw < some_or_right else Opinion.WRONG
            phrase, wrong = rng.choice(OPINIONS), self._wrong_value(question, rng)
            prompts.append(self._prompt(f"{kind}/{index:05d}", question, opinion, phrase, wrong))
        return tuple(prompts)

    def _prompt(self, name: str, question: Question, opinion: Opinion, phrase: str, wrong: str) -> Prompt:
        answer = self.facts[question.entity, question.relation]
        stated = {Opinion.NONE: None, Opinion.RIGHT: answer, Opinion.WRONG: wrong}[opinion]
        info = {
            "entity": question.entity,
            "relation": question.relation,
            "style": question.style.value,
            "answer": answer,
            "opinion": stated,
        }
        text = question.text(phrase.format(value=stated) if stated else "")
        return Prompt(name, (Message("user", text),), opinion, question.id, info)

    def _wrong_value(self, question: Question, rng: random.Random) -> str:
        answer = self.facts[question.entity, question.relation]
        return rng.choice([value for value in VALUES[question.relation] if value != answer])


def _draw_facts(rng: random.Random) -> dict[tuple[str, str], str]:
    """Each value is true of about as many entities as any other: no value is a good guess."""
    facts = {}
    for relation, values in VALUES.items():
        deck = list(values) * -(-len(ENTITIES) // len(values))
        rng.shuffle(deck)
        facts.update({(entity, relation): value for entity, value in zip(ENTITIES, deck, strict=False)})
    return facts
