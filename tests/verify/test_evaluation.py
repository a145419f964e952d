"""pass@k: against enumeration, and left out where nothing can be verified."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from alignbench_verify.config import VerifiedConfig
from alignbench_verify.evaluation import Verified, pass_at_k

from alignbench import ExampleScore, Generation, Prompt, Subject, UserError
from tests import tiny
from tests.verify.rows import row


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one(n: int) -> None:
    for right, k in itertools.product(range(n + 1), range(1, n + 1)):
        draws = list(itertools.combinations(range(n), k))
        found = sum(any(place < right for place in draw) for draw in draws) / len(draws)
        assert pass_at_k(n, right, k) == pytest.approx(found, abs=1e-12)


def test_pass_at_k_is_unbiased() -> None:
    """The mean over all samples of n independent tries is the probability of one right in k."""
    n, p = 6, 0.3
    for k in range(1, n + 1):
        mean = sum(
            p ** sum(tries) * (1 - p) ** (n - sum(tries)) * pass_at_k(n, sum(tries), k)
            for tries in itertools.product((0, 1), repeat=n)
        )
        assert mean == pytest.approx(1 - (1 - p) ** k)


def subject(asked: dict[Prompt, list[str]], *, finished: bool = True) -> Subject:
    generations = tuple(
        Generation(prompt, i, text, 1, finished, -1.0, -1.0, 0.5)
        for prompt, texts in asked.items()
        for i, text in enumerate(texts)
    )
    return Subject(Path(), generations, generations, tiny.letters(), respond=lambda *_: (), measure=lambda *_: ())


class Keyed(Prompt):
    """A prompt that can be a key."""

    def __hash__(self) -> int:
        return hash(self.id)


def keyed(name: str, **settings: object) -> Keyed:
    return Keyed(**vars(row(name, **settings)))  # type: ignore[arg-type]


ASKED = {
    keyed("a", answer="1", subset="Level 1"): ["1", "2", "1", "3"],
    keyed("b", answer="2", subset="Level 1"): ["1", "1", "1", "1"],
    keyed("c", answer="3", subset="Level 2"): ["3", "3", "3", "3"],
}


def scores(config: VerifiedConfig, given: Subject) -> dict[tuple[str, str], float]:
    made = Verified(config)
    found = made.evaluate(given)
    assert {score.metric for score in found} <= {spec.name for spec in made.specs()}
    assert all(isinstance(score, ExampleScore) for score in found)
    return {(score.metric, score.example): score.value for score in found}


def test_metrics_by_hand() -> None:
    found = scores(VerifiedConfig(), subject(ASKED))
    assert found == {
        ("verified/pass_at_1", "a"): 0.5,
        ("verified/pass_at_2", "a"): pytest.approx(5 / 6),
        ("verified/pass_at_4", "a"): 1.0,
        ("verified/pass_at_1", "b"): 0.0,
        ("verified/pass_at_2", "b"): 0.0,
        ("verified/pass_at_4", "b"): 0.0,
        ("verified/pass_at_1", "c"): 1.0,
        ("verified/pass_at_2", "c"): 1.0,
        ("verified/pass_at_4", "c"): 1.0,
    }


def test_subsets_have_their_own() -> None:
    found = scores(VerifiedConfig(subsets=["Level 1"]), subject(ASKED))
    own = {key: value for key, value in found.items() if "level" in key[0]}
    assert own == {
        ("verified/level_1_pass_at_1", "a"): 0.5,
        ("verified/level_1_pass_at_4", "a"): 1.0,
        ("verified/level_1_pass_at_1", "b"): 0.0,
        ("verified/level_1_pass_at_4", "b"): 0.0,
    }


def test_prompts_without_references_are_left_out() -> None:
    assert scores(VerifiedConfig(), subject({keyed("a"): ["1"]})) == {}
    both = scores(VerifiedConfig(), subject({keyed("a"): ["1"], keyed("b", answer="1"): ["1"]}))
    assert both == {("verified/pass_at_1", "b"): 1.0}


def test_what_was_cut_off_is_wrong() -> None:
    asked = {keyed("a", answer="1"): ["1"]}
    assert scores(VerifiedConfig(), subject(asked, finished=False)) == {("verified/pass_at_1", "a"): 0.0}
    assert scores(VerifiedConfig(unfinished=True), subject(asked, finished=False)) == {("verified/pass_at_1", "a"): 1.0}


def test_clusters_are_kept() -> None:
    prompt = Keyed(**{**vars(row("a", answer="1")), "cluster": "twins"})
    found = Verified(VerifiedConfig()).evaluate(subject({prompt: ["1"]}))
    assert [score.cluster for score in found] == ["twins"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"checks": []}, "empty"),
        ({"checks": ["nothing"]}, "number"),
        ({"subsets": ["a", "A"]}, "each once"),
        ({"subsets": [str(i) for i in range(17)]}, "at most 16"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, list[str]], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Verified(VerifiedConfig(**settings))
