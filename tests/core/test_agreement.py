"""Several people rank the same responses: their rankings stay apart, and how far they agree is told."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from alignbench import Ranking
from alignbench.pipeline.data.agreement import Agreement, agreement, alpha
from tests import tiny
from tests.core.harness import Command, Plugin, lines, records


def ranked(
    who: str, ranks: tuple[int, ...], responses: tuple[str, ...] = ("x", "y", "z"), prompt: str = "a"
) -> Ranking:
    return Ranking(tiny.prompt(prompt), responses, ranks, annotator=who)


def test_verdicts_on_the_same_pair() -> None:
    """Three pairs that two people ranked, in another order of the responses, and one pair that three did: of six verdicts of two
    people four are alike."""
    rankings = [
        ranked("Ann", (0, 1, 2)),
        ranked("Bob", (2, 0, 1), responses=("z", "x", "y")),
        ranked("Cid", (1, 0), responses=("x", "y")),
        ranked("Ann", (0, 0), responses=("x", "y"), prompt="b"),
        ranked("Cid", (0, 1), responses=("x", "y"), prompt="c"),
        ranked("", (0, 1, 2)),
    ]
    found = agreement(rankings)
    assert found is not None
    assert (found.annotators, found.pairs) == (3, 3)
    assert found.alike == pytest.approx((1 + 0 + 0 + 1 + 1) / 5)
    # x over y: -1, -1, 1; x over z and y over z: -1, -1 each. Seven values, of which one is 1.
    assert found.alpha == pytest.approx(1 - 2.0 / (2 * 6 * 1 / 6))
    assert "3 annotators share 3 pairs: 60% of verdicts are alike" in found.line()


def test_nobody_shares_a_pair() -> None:
    assert agreement([]) is None
    assert agreement([ranked("Ann", (0, 1, 2)), ranked("Bob", (0, 1, 2), prompt="b")]) is None
    assert agreement([ranked("Ann", (0, 1, 2)), ranked("Ann", (2, 1, 0))]) is None, "one person, twice"


def test_where_all_say_the_same_there_is_no_chance_to_compare_with() -> None:
    found = agreement([ranked("Ann", (0, 1), ("x", "y")), ranked("Bob", (0, 1), ("x", "y"))])
    assert found == Agreement(2, 1, 1.0, pytest.approx(math.nan, nan_ok=True))
    assert "alpha" not in found.line() and set(found.figures()) == {
        "agreement/annotators",
        "agreement/shared_pairs",
        "agreement/alike",
    }


def test_alpha_is_that_of_the_library() -> None:
    library = pytest.importorskip("krippendorff")
    rng = random.Random(0)
    for people in (2, 3, 5):
        table = [[rng.choice((-1, -1, 0, 1)) if rng.random() < 0.7 else None for _ in range(people)] for _ in range(40)]
        units = [[value for value in row if value is not None] for row in table]
        columns = [[math.nan if row[i] is None else row[i] for row in table] for i in range(people)]
        theirs = library.alpha(reliability_data=columns, level_of_measurement="nominal")
        assert alpha([unit for unit in units if len(unit) > 1]) == pytest.approx(theirs)


def test_a_run_keeps_them_apart_and_tells(command: Command, plugin: Plugin, tmp_path: Path) -> None:
    """Two people rank the prompts of the training data; a prompt's rankings lie on one side of the split."""
    texts = [f"{one} {other}" for one in "cdef" for other in "cdef"]
    rows = [
        {"prompt": text, "responses": ["a d", "b"], "ranks": [who == "Bob" and i % 4 == 0, 0 if who == "Bob" and i % 4 == 0 else 1], "annotator": who}
        for i, text in enumerate(texts)
        for who in ("Ann", "Bob")
    ]  # fmt: skip
    path = tmp_path / "rankings.jsonl"
    path.write_text("".join(json.dumps({**row, "ranks": [int(rank) for rank in row["ranks"]]}) + "\n" for row in rows))
    small = ("sft.updates=1", "algo.batch_size=4", "algo.updates=1", "eval.samples=1", "eval.families=[optimization]")
    done = command("data=people", f"annotator.path={path}", "algo=dpo", *small)
    assert done.code == 0, done.err
    assert "2 annotators share 16 pairs: 75% of verdicts are alike" in done.err
    run = records(tmp_path / "runs")[0]
    assert run["reports"]["agreement/alike"] == 0.75 and "agreement/alpha" in run["reports"]
    (written,) = tmp_path.glob("runs/*/rankings.jsonl")
    kept = lines(written)
    assert sorted((r["annotator"], r["messages"][-1]["content"]) for r in kept) == sorted(
        (who, text) for text in texts for who in ("Ann", "Bob")
    )
    sides: dict[str, set[str]] = {}
    for ranking in kept:
        sides.setdefault(ranking["messages"][-1]["content"], set()).add(ranking["split"])
    assert all(len(split) == 1 for split in sides.values())
