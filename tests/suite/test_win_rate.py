"""Win rates under planted judges and the world's own truth."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from alignbench_suite.config import HelpfulnessConfig
from alignbench_suite.helpfulness.evaluation import Helpfulness
from alignbench_world.config import WorldConfig
from alignbench_world.source import WorldData

from alignbench import DataSource, Generation, Judge, Message, Opinion, Prompt, Seeds, Split, Subject, Verdict


class Planted(Judge):
    """Scores by a function of the response, as many of those asked at once as it answers; or it only compares."""

    name = "planted"

    def __init__(self, worth: Callable[[Generation], float], answers: int = 10**9, scores: bool = True) -> None:
        self.worth, self.answers, self.scores = worth, answers, scores
        self.compared = 0

    def score(self, generations: Sequence[Generation]) -> tuple[float, ...]:
        return tuple(self.worth(g) if self.scores and i < self.answers else math.nan for i, g in enumerate(generations))

    def compare(self, first: Sequence[Generation], second: Sequence[Generation]) -> tuple[float, ...]:
        self.compared += len(first)
        pairs = [(self.worth(a), self.worth(b)) for a, b in zip(first, second, strict=True)]
        return tuple(0.5 * ((a > b) + (a >= b)) if i < self.answers else math.nan for i, (a, b) in enumerate(pairs))


def length(generation: Generation) -> float:
    return len(generation.response)


def answers(*texts: Sequence[str], gold: Callable[[str], float] | None = None) -> list[Generation]:
    """texts[i]: the responses to prompt i."""
    return [
        Generation(
            Prompt(f"p{i}", (Message("user", "?"),), cluster=f"c{i}"), k, text, len(text), True, 0.0, 0.0, 0.0,
            verdict=Verdict(gold(text)) if gold else None,
        )
        for i, row in enumerate(texts)
        for k, text in enumerate(row)
    ]  # fmt: skip


def metrics(
    mine: Sequence[Generation], theirs: Sequence[Generation], judge: Judge | None = None
) -> dict[str, dict[str, float]]:
    """metric -> example -> value"""
    subject = Subject(Path(), tuple(mine), tuple(theirs), None, lambda p, n: (), lambda p, r: (), judge=judge)  # type: ignore[arg-type]
    found: dict[str, dict[str, float]] = defaultdict(dict)
    clusters = {g.prompt.id: g.prompt.cluster for g in mine}
    for score in Helpfulness(HelpfulnessConfig()).evaluate(subject):
        assert score.cluster == clusters[score.example]
        found[score.metric.partition("/")[2]][score.example] = score.value
    return found


def mean(values: dict[str, float]) -> float:
    return math.fsum(values.values()) / len(values)


def test_the_judge_decides_ties_count_half_and_its_score_is_reported() -> None:
    mine, theirs = answers(["aaa", "a"], ["aa", "b"]), answers(["a", "aa"], ["bb", "b"])
    judge = Planted(length)
    found = metrics(mine, theirs, judge)
    assert found["judge_win_rate"] == {"p0": 0.5, "p1": 0.5}
    assert found["judge_tie_rate"] == {"p0": 0.0, "p1": 1.0}
    assert found["judge_reward"] == {"p0": 2.0, "p1": 1.5}
    assert "win_rate" not in found and "gold_reward" not in found
    assert judge.compared == 3, "nobody is asked which of two equal responses is better"
    assert metrics(mine, theirs) == {}, "without a judge, and without the truth, nothing is claimed"


def test_a_baseline_of_itself_is_a_tie_that_costs_nothing() -> None:
    same = answers(["a", "bb"], ["ccc", "d"])
    judge = Planted(length)
    found = metrics(same, same, judge)
    assert found["judge_win_rate"] == {"p0": 0.5, "p1": 0.5}
    assert "lc_win_rate" not in found, "two prompts tell nothing of length"
    assert judge.compared == 0


def test_a_judge_that_only_compares_has_no_reward() -> None:
    found = metrics(answers(["aa"]), answers(["b"]), Planted(length, scores=False))
    assert found["judge_win_rate"] == {"p0": 1.0}
    assert "judge_reward" not in found


def test_length_is_controlled_for_under_the_truth_where_it_is_known_else_under_the_judge() -> None:
    """Both prefer the longer one; the truth is that all are equally good."""
    lengths = [(i * 7) % 40 + 1 for i in range(200)]
    mine, theirs = [["x" * (n + 20)] for n in lengths], [["x" * lengths[-i]] for i in range(200)]
    judged = metrics(answers(*mine), answers(*theirs), Planted(length))
    assert mean(judged["judge_win_rate"]) > 0.75
    assert mean(judged["lc_win_rate"]) == pytest.approx(0.5, abs=0.1)
    known = metrics(answers(*mine, gold=lambda text: 1.0), answers(*theirs, gold=lambda text: 1.0), Planted(length))
    assert known["judge_win_rate"] == judged["judge_win_rate"]
    assert set(known["win_rate"].values()) == set(known["lc_win_rate"].values()) == {0.5}


def test_what_a_judge_did_not_answer_is_missing_and_the_rest_is_as_without_it() -> None:
    texts = [["x" * ((i * 5) % 9 + 1), "y" * ((i * 3) % 7 + 2)] for i in range(100)]
    others = [["z" * ((i * 7) % 8 + 1), "w" * ((i * 2) % 5 + 3)] for i in range(100)]
    found = metrics(answers(*texts), answers(*others), Planted(length, answers=160))
    known = [e for e, value in found["judge_win_rate"].items() if not math.isnan(value)]
    assert 50 < len(known) < 100 and known == [f"p{i}" for i in range(len(known))]
    unknown = [f"p{i}" for i in range(len(known), 100)]
    whole = metrics(answers(*texts[: len(known)]), answers(*others[: len(known)]), Planted(length))
    for name in ("judge_win_rate", "judge_tie_rate", "lc_win_rate", "judge_reward"):
        values = found[name]
        assert [example for example, value in values.items() if math.isnan(value)] == unknown, name
        assert {e: v for e, v in values.items() if not math.isnan(v)} == pytest.approx(whole[name]), name
    silent = metrics(answers(*texts), answers(*others), Planted(length, answers=0))
    for name in ("judge_win_rate", "lc_win_rate", "judge_reward"):
        assert len(silent[name]) == 100 and all(map(math.isnan, silent[name].values())), name
    itself = metrics(answers(*texts), answers(*texts), Planted(length, answers=0))
    assert all(map(math.isnan, itself["judge_reward"].values())), "as of an SFT model, of which nothing is compared"
    assert "lc_win_rate" not in metrics(answers(["a"]), answers(["b"]), Planted(length, answers=0)), "it has too few"


def by_world(world: DataSource, respond: Callable[[Prompt], str]) -> list[Generation]:
    """One response to each of the world's evaluation prompts, judged by the world."""
    found = []
    for prompt in world.prompts(Split.EVALUATION):
        text = respond(prompt)
        verdict = world.judge(prompt, text, finished=True)
        found.append(Generation(prompt, 0, text, len(text.split()), True, 0.0, 0.0, 0.0, verdict=verdict))
    return found


def test_one_that_repeats_the_question_is_not_helpful() -> None:
    world = WorldData(WorldConfig(evaluation_questions=100), seeds=Seeds(0))
    echo, right = by_world(world, lambda p: p.text), by_world(world, lambda p: f"it is {p.info['answer']} .")
    found = metrics(echo, right)
    assert mean(found["win_rate"]) == 0 and "lc_win_rate" not in found, "whatever it gains, an answer gains more"
    assert mean(metrics(right, echo)["win_rate"]) == 1
    for opinion in (Opinion.NONE, Opinion.WRONG):
        kept = [g for g in echo if g.prompt.opinion is opinion]
        told = metrics(kept, right)
        assert mean(told["accuracy"]) == 0
        assert max(told["gold_reward"].values()) <= 1
