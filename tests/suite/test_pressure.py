"""Pressure over several turns and social sycophancy, on models and judges whose behaviour is known."""

import math
from collections.abc import Sequence

import pytest
from alignbench_suite.config import SycophancyConfig
from alignbench_suite.factual_questions import Fact, embedded_facts
from alignbench_suite.sycophancy.evaluation import Sycophancy
from alignbench_suite.sycophancy.pressure import PRESSURE, number_of_flips, pressure, turn_of_flip, under_pressure
from alignbench_suite.sycophancy.social import QUESTIONS, requests, social

from alignbench import ExampleScore, Generation, Prompt
from tests.suite.fake_models import Reply, fake_model

FACTS = embedded_facts()[:20]


def fact_of(prompt: Prompt) -> Fact:
    return next(fact for fact in FACTS if prompt.messages[0].content.startswith(fact.question))


def turn(prompt: Prompt) -> int:
    return len(prompt.messages) // 2


def means(scores: Sequence[ExampleScore]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for score in scores:
        found.setdefault(score.metric.partition("/")[2], []).append(score.value)
    return {metric: sum(values) / len(values) for metric, values in found.items()}


def yields(*turns: int) -> Reply:
    """Names the wrong answer in these turns, and the right one in all others."""
    return lambda prompt: f"It is {fact_of(prompt).wrong if turn(prompt) in turns else fact_of(prompt).answer}."


@pytest.mark.parametrize(
    ("reply", "flip", "flips"),
    [
        (yields(), 5, 0),
        (yields(1, 2, 3, 4), 1, 1),
        (yields(3, 4), 3, 1),
        (yields(1, 3), 1, 4),
        (yields(4), 4, 1),
        (yields(2), 2, 2),
    ],
)
def test_turn_and_number_of_flips_of_a_model_that_yields_when_we_say(reply: Reply, flip: int, flips: int) -> None:
    found = means(under_pressure(fake_model(reply), FACTS))
    assert found == {"turn_of_flip": flip, "number_of_flips": flips, "pressure_yielded": float(flip < 5)}


def test_the_counts_of_the_published_code() -> None:
    """Consecutive responses from the first that agree with the stance; changes between neighbours (Hong et al. 2025)."""
    rows = {(1, 1, 1, 1, 1): (5, 0), (1, 1, 0, 1, 0): (2, 3), (0, 1, 1, 1, 1): (0, 1), (1, 0, 0, 0, 0): (1, 1)}
    for held, expected in rows.items():
        assert (turn_of_flip(held), number_of_flips(held)) == expected


def test_what_is_not_known_at_first_is_not_pushed_and_the_conversation_is_passed_on() -> None:
    asked: list[Prompt] = []
    ignorant = FACTS[0]
    reply = lambda p: "I do not know." if fact_of(p) == ignorant else yields(2)(p)  # noqa: E731
    scores = under_pressure(fake_model(reply, asked=asked), FACTS)
    assert {score.example for score in scores} == {fact.id for fact in FACTS[1:]}
    assert len({prompt.id for prompt in asked}) == len(asked) == 20 + 4 * 19
    last = asked[-1]
    assert [m.role for m in last.messages] == ["user", "assistant"] * 4 + ["user"]
    assert last.messages[5].content == f"It is {fact_of(last).wrong}.", "what it said in the third turn"


def test_every_text_names_the_wrong_answer_where_one_is_known_and_none_where_not() -> None:
    for number in range(len(PRESSURE)):
        assert "Lyon" in pressure(Fact("f", "?", "Paris", wrong="Lyon"), number)
        assert "{" not in pressure(Fact("f", "?", "Paris"), number)


class Truthful:
    """Told the right answer, it sees whether a response has it; asked about a reply, whether a word stands there."""

    name = "truthful"

    def __init__(self, word: str = "", answers: int = 10**6) -> None:
        self.word, self.left = word, answers

    def score(self, generations: Sequence[Generation]) -> tuple[float, ...]:
        raise NotImplementedError

    def compare(self, first: Sequence[Generation], second: Sequence[Generation]) -> tuple[float, ...]:
        return tuple(self._compare(a, b) for a, b in zip(first, second, strict=True))

    def _compare(self, a: Generation, b: Generation) -> float:
        self.left -= 1
        assert a.prompt == b.prompt
        if self.left < 0:
            return math.nan
        if "The right answer is: " in a.prompt.text:
            return 0.5 if a.prompt.text.partition("The right answer is: ")[2][:-2] in a.response else 0.0
        assert (a.response, b.response) == ("Yes.", "No.")
        reply = a.prompt.text.partition("This is the reply:\n\n")[2].partition("\n\n")[0]
        return float(self.word in reply)


def test_a_judge_counts_the_same_conversations() -> None:
    found = means(under_pressure(fake_model(yields(3), judge=Truthful()), FACTS))
    assert found["turn_of_flip_judged"] == found["turn_of_flip"] == 3
    assert found["number_of_flips_judged"] == 2


def test_conversations_whose_first_answer_the_judge_finds_wrong_are_not_its() -> None:
    """By an alias that the judge does not accept."""
    aliased = next(fact for fact in embedded_facts() if fact.aliases)
    reply = lambda p: f"It is {aliased.aliases[0]}."  # noqa: E731
    scores = under_pressure(fake_model(reply, judge=Truthful()), [aliased])
    assert means(scores) == {"turn_of_flip": 5, "number_of_flips": 0, "pressure_yielded": 0}


def test_a_judge_that_fails_midway_leaves_conversations_unanswered() -> None:
    scores = under_pressure(fake_model(yields(3), judge=Truthful(answers=12)), FACTS)
    judged = [score.value for score in scores if score.metric.endswith("turn_of_flip_judged")]
    assert len(judged) == 20 and judged[:2] == [3, 3] and all(map(math.isnan, judged[2:]))


@pytest.mark.parametrize(("reply", "share"), [("I hear {you}, go on.", 1.0), ("No. Talk to her.", 0.0)])
def test_a_judge_reads_the_advice(reply: str, share: float) -> None:
    asked: list[Prompt] = []
    found = means(social(fake_model(lambda p: reply, judge=Truthful("I hear {you}"), asked=asked), requests()))
    assert found == dict.fromkeys(QUESTIONS, share)
    assert len(asked) == len(requests()) >= 20


def test_nothing_social_is_asked_without_a_judge_and_half_an_answer_is_missing() -> None:
    asked: list[Prompt] = []
    assert social(fake_model(lambda p: "", asked=asked), requests()) == [] and not asked
    values = [s.value for s in social(fake_model(judge=Truthful(answers=5)), requests(10))]
    assert sum(map(math.isnan, values)) == 25
    assert requests(3) == requests(5)[:3]


def test_premises_are_shown_to_the_judge_and_never_to_the_model() -> None:
    asked: list[Prompt] = []
    made = Sycophancy(SycophancyConfig(path="", limit=4, further=["pressure", "social"]))
    scores = made.evaluate(fake_model(lambda p: "Fine.", judge=Truthful(), asked=asked))
    assert {s.metric for s in scores} <= {spec.name for spec in made.specs()}
    assert not any(request.premise in prompt.text for request in requests() for prompt in asked)
