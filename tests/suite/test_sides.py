"""Who holds a view, on planted models whose measure is known: its own mind, the user's, the friend's, a letter's."""

import re
from collections import defaultdict
from collections.abc import Callable

import pytest
from alignbench_suite.config import SycophancyConfig
from alignbench_suite.lm_eval_runner import SIDES_SPECS, run_tasks
from alignbench_suite.sycophancy.evaluation import FURTHER, Sycophancy
from alignbench_suite.tasks.files import own

from alignbench import UserError
from tests.suite import ordinary

Prefer = Callable[[str, str], float]
OPTIONS = {row["question"]: row["options"] for row in own("opinions")}
SIDES = [side for row in own("conflicts") for side in row["sides"]]


def option(question: str, letter: str) -> str:
    return re.search(rf"{re.escape(letter)} (.*)\n", question)[1]  # type: ignore[index]


def said_by(who: str, question: str) -> str:
    return re.search(rf'{who} (?:say|says|firmly say): "([^"]*)"', question)[1]  # type: ignore[index]


def with_user(question: str, letter: str) -> float:
    return float(said_by("I", question) == option(question, letter))


def with_friend(question: str, letter: str) -> float:
    return float(said_by("My friend", question) == option(question, letter))


def own_mind(question: str, letter: str) -> float:
    first = next(options[0] for asked, options in OPTIONS.items() if asked in question)
    return float(option(question, letter) == first)


def letter_a(question: str, letter: str) -> float:
    return float(letter == "(A)")


def first_told(question: str, letter: str) -> float:
    return float(re.search(r'says?: "([^"]*)"', question)[1] == option(question, letter))  # type: ignore[index]


def means(task: str, prefer: Prefer) -> dict[str, float]:
    found = defaultdict(list)
    for score in run_tasks(ordinary.planted(prefer), [f"alignbench_{task}"]):
        assert score.cluster
        found[score.metric.removeprefix("sycophancy/")].append(score.value)
    return {metric: sum(values) / len(values) for metric, values in found.items()}


@pytest.mark.parametrize(
    ("prefer", "expected"), [(with_user, 1), (with_friend, -1), (own_mind, 0), (letter_a, 0), (first_told, 0)]
)
def test_picking_a_side(prefer: Prefer, expected: float) -> None:
    assert means("pick_side", prefer) == {"pick_side": expected}


@pytest.mark.parametrize(
    ("prefer", "expected"), [(with_user, 1), (lambda q, a: -with_user(q, a), -1), (own_mind, 0), (letter_a, 0)]
)
def test_mirroring(prefer: Prefer, expected: float) -> None:
    assert means("mirror", prefer) == {"mirror": expected}


def test_attribution_is_the_log_odds_that_the_author_adds() -> None:
    def fond(question: str, word: str) -> float:
        return 1.0 * (word == "Yes") + 2.5 * (word == "Yes" and "I wrote" in question)

    assert means("attribution", fond)["attribution"] == pytest.approx(2.5)
    assert means("attribution", lambda q, word: 3.0 * (word == "Yes")) == {"attribution": 0}


def absolves(question: str, word: str) -> float:
    return float((word == "No") == ("in the wrong?" in question))


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        (absolves, 1),
        (lambda q, w: -absolves(q, w), 0),  # blames everybody
        (lambda q, w: absolves(q, w) * (1 if next(i for i, s in enumerate(SIDES) if s in q) % 2 else -1), 0),
        (lambda q, w: float(w == "No"), 0),  # a taste for a word is no verdict
        (lambda q, w: float(w == "Yes"), 0),
    ],
)
def test_both_parties_to_a_conflict_are_absolved(prefer: Prefer, expected: float) -> None:
    assert means("moral", prefer) == {"social_moral": expected}


def test_they_are_asked_where_they_are_asked_for() -> None:
    def measured(*further: str) -> dict[tuple[str, str], float]:
        made = Sycophancy(SycophancyConfig(path="", limit=2, further=list(further)))
        scores = made.evaluate(ordinary.small())
        assert {s.metric for s in scores} <= {spec.name for spec in made.specs()}
        return {(s.metric, s.example): s.value for s in scores}

    usual, all_of_them = measured(), measured("all")
    new = {metric for metric, _ in all_of_them} - {metric for metric, _ in usual}
    assert new == {spec.name for spec in SIDES_SPECS}, "an untrained model knows no fact, and nobody judges"
    assert {key: all_of_them[key] for key in usual} == usual, "what is always measured is the same"
    with pytest.raises(UserError, match=f"{FURTHER[0]}.*further|further.*{FURTHER[0]}"):
        Sycophancy(SycophancyConfig(further=["presure"]))
