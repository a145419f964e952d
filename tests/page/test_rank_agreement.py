"""Agreement, gold questions and the pull of the first place, against what is known of made-up people."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from alignbench_data.recorded import read_rankings

from alignbench import Seeds, UserError
from alignbench.page.rank.agreement import Agreement, agreement, alpha
from alignbench.page.rank.export import for_training, hashed_name, rankings, write
from alignbench.page.rank.items import Judgement
from alignbench.page.rank.session import Session
from alignbench.page.rank.store import Answer
from tests.page.rank_kit import action_id, item, project

SEEDS = Seeds(0)
Ranker = Callable[[random.Random, int, Sequence[int]], Sequence[int]]


def answer(
    who: str, number: int, ranks: Sequence[int], shown: Sequence[int] = (0, 1, 2), seconds: float = 0.0
) -> Answer:
    return Answer(who, number, Judgement(tuple(ranks), seconds=seconds), tuple(shown), "2026-01-01T00:00:00+00:00")


def of(people: dict[str, Ranker], items: int = 200, gold: int = 0) -> Agreement:
    """Everybody ranks everything. Response 0 is right, 1 next, 2 last."""
    rng = random.Random(3)
    made = {i: item(i, gold=(0, 1, 2) if i < gold else ()) for i in range(items)}
    answers = []
    for i, (who, ranker) in itertools.product(made, people.items()):
        shown = rng.sample(range(3), 3)
        answers.append(answer(who, i, ranker(rng, i, shown), shown, seconds=10.0 + i % 3))
    return agreement(made, answers, seeds=SEEDS)


def right(rng: random.Random, number: int, shown: Sequence[int]) -> Sequence[int]:
    return (0, 1, 2)


def chance(rng: random.Random, number: int, shown: Sequence[int]) -> Sequence[int]:
    return rng.sample(range(3), 3)


def taste(rng: random.Random, number: int, shown: Sequence[int]) -> Sequence[int]:
    """The same for everybody, another for each item."""
    return random.Random(f"taste {number}").sample(range(3), 3)


def first_place(rng: random.Random, number: int, shown: Sequence[int]) -> Sequence[int]:
    return [list(shown).index(k) for k in range(3)]


def test_people_who_agree_and_people_who_guess() -> None:
    assert of({"Ann": taste, "Ben": taste}).alpha.value == pytest.approx(1.0)
    found = of({"Ann": chance, "Ben": chance}).alpha
    assert found.value is not None and found.low is not None and found.high is not None
    assert abs(found.value) < 0.15 and found.low < 0 < found.high


def test_which_response_a_pair_counts_as_first_changes_little() -> None:
    """All prefer the first response: they agree, although one value alone would be seen without the coin."""
    assert of({"Ann": right, "Ben": right}).alpha.value == pytest.approx(1.0)


def test_alpha_is_krippendorffs() -> None:
    """1 - observed / expected disagreement (Krippendorff 2011), with two people and pairs of two responses: by hand."""
    pairs = [((0, 1), (0, 1)), ((0, 1), (1, 0)), ((0, 1), (0, 0)), ((1, 0), (1, 0)), ((0, 0), (0, 0)), ((1, 0), (1, 0))]
    answers = [
        answer(who, i, ranks[k], (0, 1)) for i, ranks in enumerate(pairs) for k, who in enumerate(("Ann", "Ben"))
    ]
    coin = SEEDS.python("alpha: which is first")
    value = {(0, 1): 1.0, (0, 0): 0.5, (1, 0): 0.0}
    units = []
    for ranks in pairs:
        turned = coin.random() < 0.5
        units.append([1 - value[r] if turned else value[r] for r in ranks])
    values = [v for unit in units for v in unit]
    n = len(values)
    observed = sum(2 * (a - b) ** 2 for a, b in units) / n
    expected = sum((a - b) ** 2 for a, b in itertools.permutations(values, 2)) / (n * (n - 1))
    assert alpha(answers, seeds=SEEDS).value == pytest.approx(1 - observed / expected, abs=1e-12)


def test_what_too_few_have_answered_is_not_told() -> None:
    assert agreement({}, [], seeds=SEEDS).alpha.value is None
    one = agreement({0: item(0)}, [answer("Ann", 0, (0, 1, 2))], seeds=SEEDS)
    assert one.alpha.value is None and one.couples == () and one.people[0].gold.value is None
    ties = agreement({0: item(0)}, [answer(who, 0, (0, 0, 0)) for who in ("Ann", "Ben")], seeds=SEEDS)
    assert ties.alpha.value is None and ties.couples == ()


def test_kendalls_tau_between_people() -> None:
    found = of({"Ann": right, "Ben": lambda *_: (2, 1, 0), "Cleo": lambda *_: (0, 2, 1)})
    assert {(c.first, c.second): (round(c.tau, 6), c.items) for c in found.couples} == {
        ("Ann", "Ben"): (-1.0, 200), ("Ann", "Cleo"): (0.333333, 200), ("Ben", "Cleo"): (-0.333333, 200),
    }  # fmt: skip


def test_gold_questions_tell_who_looks() -> None:
    found = of({"Ann": right, "Ben": chance, "Cleo": lambda *_: (0, 0, 0)}, gold=120)
    accuracy = {person.name: person.gold for person in found.people}
    assert accuracy["Ann"].value == 1.0 and accuracy["Cleo"].value == 0.5 and accuracy["Ann"].items == 120
    ben = accuracy["Ben"]
    assert ben.value is not None and ben.low is not None and ben.high is not None
    assert ben.low < 0.5 < ben.high and abs(ben.value - 0.5) < 0.12
    assert found.alpha.items == 80, "gold questions count to no agreement"


def test_who_takes_what_stands_first() -> None:
    found = of({"Ann": first_place, "Ben": taste})
    first = {person.name: person.first for person in found.people}
    assert first["Ann"].value == 1.0
    ben = first["Ben"]
    assert ben.value is not None and ben.low is not None and ben.high is not None and ben.low < 0.5 < ben.high


def test_time_and_what_could_not_be_judged() -> None:
    answers = [
        answer("Ann", 0, (0, 1, 2), seconds=4.0),
        answer("Ann", 1, (), seconds=8.0),
        answer("Ann", 2, (0, 1, 2), seconds=90.0),
    ]
    (ann,) = agreement({i: item(i) for i in range(3)}, answers, seeds=SEEDS).people
    assert (ann.answers, ann.cannot_judge, ann.seconds) == (3, 1, 8.0)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Bootstrap over items, people who prefer the first response with probability .7."""
    held = 0
    for draw in range(60):
        rng = random.Random(draw)
        answers = [answer("Ann", i, (0, 1) if rng.random() < 0.7 else (1, 0), (0, 1)) for i in range(60)]
        found = agreement({i: item(i, ("x", "y")) for i in range(60)}, answers, seeds=Seeds(draw)).first
        assert found.low is not None and found.high is not None
        held += found.low <= 0.7 <= found.high
    assert held >= 50


def test_rankings_come_out_as_the_annotator_reads_them(tmp_path: Path) -> None:
    made = project(
        tmp_path, [item(0, ("a", "b\ud800\0\u202e", "c")), item(1), item(2, gold=(0, 1, 2))], people=2, gold_every=2
    )
    for who in ("Ann", "Ben"):
        person = Session(made, made.annotator(who))
        for number in range(3):
            before = person.state().before
            assert before is not None
            by_response = [[2, 0, 2], [], [0, 1, 2]][before.number - 1]
            shown = [by_response[k] for k in before.shown] if by_response else []
            person.act(
                {
                    "id": action_id(),
                    "kind": "answer",
                    "item": before.number,
                    "ranks": shown,
                    "note": "why <not>",
                    "seconds": 2.0 + number,
                }
            )
    out = tmp_path / "out" / "rankings.jsonl"
    assert write(made, out) == 2, "neither the gold question nor what could not be judged"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["annotator"] for row in rows} == {"Ann", "Ben"} and all(row["ranks"] == [1, 0, 1] for row in rows)
    assert all(
        row["note"] == "why <not>" and row["seconds"] >= 2 and row["at"] and row["project"] == "first" for row in rows
    )
    with pytest.raises(UserError, match="surrogate"):  # the reader's own word on what no tokenizer reads
        read_rankings(out)


def test_two_peoples_rankings_of_one_prompt_are_kept_apart(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0)], people=2)
    for who, ranks in (("Ann", [0, 1, 2]), ("Ben", [1, 1, 0])):
        person = Session(made, made.annotator(who))
        before = person.state().before
        assert before is not None
        person.act(
            {"id": action_id(), "kind": "answer", "item": before.number, "ranks": [ranks[k] for k in before.shown]}
        )
    path = for_training(made)
    assert for_training(made) == path, "the same rankings, the same file"
    found = read_rankings(path)
    assert [(r.annotator, r.ranks) for r in found] == [("Ann", (0, 1, 2)), ("Ben", (1, 1, 0))]
    hashed = [json.loads(line)["annotator"] for line in rankings(made, hashed=True).splitlines()]
    assert len(set(hashed)) == 2 and not {"Ann", "Ben"} & set(hashed)
    assert hashed[0] == hashed_name("Ann", made.secret()) != hashed_name("Ann", b"guess")


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Nobody"):
        write(project(tmp_path, [item(0)]), tmp_path / "x.jsonl")
