"""How alike the responses of two rows are, on responses whose likeness is known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from alignbench import Generation, Message, Prompt
from alignbench.errors import UserError
from alignbench.results.compared.sameness import alike, sameness
from tests.results.on_disk import compare, dpo, ppo, table_of, write

Say = Callable[[int, int], str]


def run(
    folder: Path, settings: dict, say: Say, *, prompts: int = 30, samples: int = 3, asked: str = "what is it", **more
) -> Path:
    """A run whose response `i` to prompt `p` is `say(p, i)`."""
    directory = write(folder, settings, **more)
    directory.write_generations(
        Generation(
            Prompt(f"q{p}", (Message("user", f"{asked} {p}"),), cluster=f"c{p // 2}"),
            i,
            say(p, i),
            3,
            True,
            -1.0,
            -1.0,
            0.5,
        )
        for p in range(prompts)
        for i in range(samples)
    )
    return directory.path


def words(seed: int, choices: int) -> Say:
    """Draws of one of `choices` answers."""
    rng = random.Random(seed)
    return lambda p, i: f"w{rng.randrange(choices)} p{p}"


def test_likeness_of_two_texts() -> None:
    assert alike("the cat sat down", "the cat sat down") == 1
    assert alike("a b c", "x y z") < 0.2, "what smoothing leaves of texts that share nothing"
    assert alike("", "") == 1 and alike("", "a") == 0
    assert alike("the cat sat", "the cat sat down here") == alike("the cat sat down here", "the cat sat")
    assert 0.3 < alike("the cat sat", "the cat sat down here") < 1


def test_rows_that_say_the_same_one_thing_are_not_apart(tmp_path: Path) -> None:
    for settings in (ppo(), dpo()):
        run(tmp_path, settings, lambda p, i: f"it is number {p}")
    ((found,), problems) = sameness(table_of(tmp_path))
    assert found.rows == ("dpo", "ppo") and not problems
    assert found.same.value == found.between.value == found.within[0].value == found.within[1].value == 1
    assert found.apart.value == 0 and found.apart.n == 30 and found.apart.clusters == 15


def test_rows_that_each_say_another_thing_are_as_far_apart_as_can_be(tmp_path: Path) -> None:
    run(tmp_path, ppo(), lambda p, i: "yes of course my friend")
    run(tmp_path, dpo(), lambda p, i: "никогда not in thousand years")
    ((found,), _) = sameness(table_of(tmp_path))
    assert found.same.value == 0 and found.within[0].value == found.within[1].value == 1
    assert found.apart.value == pytest.approx(1 - found.between.value) and found.between.value < 0.1


def test_apart_is_from_the_mean_of_both_rows_own_likeness(tmp_path: Path) -> None:
    run(tmp_path, ppo(), lambda p, i: "yes of course my friend")
    run(tmp_path, dpo(), lambda p, i: ("yes of course my friend", "no never", "ask again later")[i])
    ((found,), _) = sameness(table_of(tmp_path))
    dpo_within, ppo_within = found.within[0].value, found.within[1].value
    assert ppo_within == 1 and dpo_within < 0.2
    assert found.same.value == pytest.approx(1 / 3)
    assert found.apart.value == pytest.approx((dpo_within + ppo_within) / 2 - found.between.value)


def test_two_rows_that_are_one_distribution_are_nought_apart_however_diverse(tmp_path: Path) -> None:
    """The interval over prompts holds 0, whoever draws; `between` alone says only how diverse they are."""
    held = 0
    for draw in range(20):
        for number, settings in enumerate((ppo(), dpo())):
            run(tmp_path / str(draw), settings, words(1000 * number + draw, 4), prompts=40)
        ((found,), _) = sameness(table_of(tmp_path / str(draw)))
        held += found.apart.low < 0 < found.apart.high
        assert found.apart.high - found.apart.low < 0.3
        assert found.within[0].value < 0.9 and found.same.value == pytest.approx(0.25, abs=0.12)
    assert held >= 17, "150 draws of this kind: 96%"


def test_responses_that_share_their_chances_are_not_compared(tmp_path: Path) -> None:
    """Two runs under the same chances give the same response of each number: that is no likeness of the models."""
    same = {(p, i): f"w{p}{i} x{p}{i} y{p}{i}" for p in range(30) for i in range(3)}
    for settings in (ppo(), dpo()):
        run(tmp_path, settings, lambda p, i: same[p, i])
    ((found,), _) = sameness(table_of(tmp_path))
    assert found.same.value == 0 and found.apart.value == pytest.approx(0, abs=1e-9)


def test_prompts_of_another_text_and_single_responses_are_left_out(tmp_path: Path) -> None:
    run(tmp_path, ppo(), words(0, 3), prompts=10)
    run(tmp_path, dpo(), words(1, 3), prompts=6)
    assert sameness(table_of(tmp_path))[0][0].apart.n == 6
    run(tmp_path / "b", ppo(), words(0, 3))
    run(tmp_path / "b", dpo(), words(1, 3), asked="another question")
    with pytest.raises(UserError, match="no prompt that both answered twice"):
        sameness(table_of(tmp_path / "b"))
    run(tmp_path / "c", ppo(), words(0, 3), samples=1)
    run(tmp_path / "c", dpo(), words(1, 3), samples=1)
    with pytest.raises(UserError, match=r"eval\.samples=2"):
        sameness(table_of(tmp_path / "c"))
    write(tmp_path / "d", ppo())
    with pytest.raises(UserError, match="not two rows"):
        sameness(table_of(tmp_path / "d"))
    write(tmp_path / "d", dpo())
    with pytest.raises(UserError, match="none of these runs has kept any"):
        sameness(table_of(tmp_path / "d"))


def test_seeds_of_a_row_count_together_and_are_compared_with_each_other(tmp_path: Path) -> None:
    for seed in (0, 1):
        run(tmp_path, ppo(seed=seed), lambda p, i, seed=seed: f"a b c d {seed}", prompts=1)
    run(tmp_path, dpo(), lambda p, i: "a b c d 0", prompts=1)
    (seeds, rows), _ = sameness(table_of(tmp_path))
    assert seeds.rows == ("ppo", "ppo, other seeds") and rows.rows == ("dpo", "ppo")
    assert (seeds.same.value, rows.same.value) == (0, 0.5)
    assert seeds.within[0].value == seeds.within[1].value == 1
    assert seeds.apart.value == pytest.approx(2 * rows.apart.value)
    assert math.isnan(rows.apart.low), "one prompt has no interval"


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "json", "latex"])
def test_the_command_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    run(tmp_path, ppo(), words(0, 3))
    run(tmp_path, dpo(), lambda p, i: f"it is {p}")
    assert compare([str(tmp_path), "--sameness", "--format", form]) == 0
    out = capsys.readouterr().out
    assert "dpo" in out and "ppo" in out
    if form == "json":
        (pair,) = json.loads(out)["pairs"]
        assert pair["within"][0]["value"] == 1 and pair["apart"]["value"] > 0.2
    if form == "csv":
        header, line = out.splitlines()
        assert dict(zip(header.split(","), line.split(","), strict=True))["prompts"] == "30"


def test_bad_requests_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kl in range(13):
        write(tmp_path / "many", ppo(kl=kl / 100))
    assert compare([str(tmp_path / "many"), "--sameness"]) == 2
    assert "at most 12 rows" in capsys.readouterr().err
    (run(tmp_path, ppo(), words(0, 3)) / "generations.jsonl").write_text('{"prompt": "q"\n')
    run(tmp_path, dpo(), words(0, 3))
    assert compare([*map(str, tmp_path.glob("run-*")), "--sameness"]) == 2
    assert "line 1: not a generation" in capsys.readouterr().err
