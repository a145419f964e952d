"""Matched KL and matched budgets: interpolation between settings of one seed, never beyond them."""

import json
import math
import re

import numpy as np
import pytest

from alignbench import Direction, Metric
from alignbench.results.compared.examples import read_examples
from alignbench.results.compared.frontier import AT_BUDGET, AT_KL, matched
from alignbench.results.compared.paired import differences
from alignbench.results.disk.record import Cost
from tests.results.on_disk import HIGHER, dpo, ppo, table_of, write, write_scores
from tests.results.on_disk import compare as main

SCORE = "helpfulness/score"


def point(folder, settings, kl: float, score: float, *, seconds=10.0, **changes):
    metrics = {
        "optimization/kl": Metric(kl, 0.1, 40, Direction.NEITHER),
        "helpfulness/plain": Metric(score, 0.1, 40, HIGHER),
    }
    run = write(folder, settings, metrics=metrics, cost=Cost({"algo": seconds}), **changes)
    rng = np.random.default_rng(settings["seed"])
    write_scores(run, SCORE, list(score + rng.normal(size=40) * 0.1))
    return run


def at(folder, axis, target):
    table = table_of(folder)
    return matched(table, axis, target, read_examples(run for row in table.rows for run in row.runs))


def test_between_the_two_neighbours_of_each_seed(tmp_path):
    for seed in (0, 1):
        for coefficient, kl, score in ((0.4, 1.0, 2.0), (0.2, 3.0 + seed, 3.0), (0.1, 9.0, 0.0)):
            point(tmp_path, ppo(coefficient, seed=seed), kl, score)
    table, _ = at(tmp_path, AT_KL, 2.0)
    (row,) = table.rows
    assert row.label == ("ppo",) and row.seeds == (0, 1)
    cell = row.cells["helpfulness/plain"]
    assert cell.value == pytest.approx((2.5 + (2 + 1 / 3)) / 2) and cell.over_seeds
    assert row.cells["optimization/kl"].value == pytest.approx(2.0)
    (note,) = [note for note in table.notes if "interpolated" in note]
    assert "at KL 2 (nats per response) over kl_coef=0.1, kl_coef=0.2, kl_coef=0.4" in note


def test_what_a_setting_lacks_is_not_said_of_its_frontier(tmp_path):
    """Only seed 0 has runs on both sides; the row of 0.4 alone, whose last seed lacks a metric, is not in the table any more."""
    for coefficient, kl in ((0.4, 1.0), (0.2, 3.0)):
        point(tmp_path, ppo(coefficient), kl, 1.0)
    for seed in (1, 2):
        point(tmp_path, ppo(0.4, seed=seed), 1.0, 1.0)
    metrics = {"optimization/kl": Metric(1.0, 0.1, 40, Direction.NEITHER)}
    write(tmp_path, ppo(0.4, seed=3), metrics=metrics)
    assert any("of fewer than its 4 seeds" in note for note in table_of(tmp_path).notes)
    table, _ = at(tmp_path, AT_KL, 2.0)
    assert [row.seeds for row in table.rows] == [(0,)]
    assert not any("of fewer" in note for note in table.notes)


@pytest.mark.parametrize("lacking", [0.4, 0.2], ids=["the nearer one", "the farther one"])
def test_what_one_of_two_settings_was_not_answered_is_not_known_between_them(lacking, tmp_path):
    for seed in (0, 1):
        for coefficient, kl in ((0.4, 1.0), (0.2, 3.0)):
            metrics = {"optimization/kl": Metric(kl, 0.1, 40, Direction.NEITHER)}
            silent = seed == 1 and coefficient == lacking
            metrics |= {} if silent else {"helpfulness/plain": Metric(1.0, 0.1, 40, HIGHER)}
            unanswered = {"helpfulness/plain": 40} if silent else {}
            write(tmp_path, ppo(coefficient, seed=seed), metrics=metrics, unanswered=unanswered)
    cell = at(tmp_path, AT_KL, 2.0)[0].rows[0].cells["helpfulness/plain"]
    assert (cell.missing, cell.asked) == (40, 80)


def test_a_setting_that_was_run_is_itself(tmp_path):
    for coefficient, kl, score in ((0.4, 1.0, 2.0), (0.2, 3.0, 5.0)):
        point(tmp_path, ppo(coefficient), kl, score)
    for target, expected in ((1.0, 2.0), (3.0, 5.0)):
        table, _ = at(tmp_path, AT_KL, target)
        assert table.rows[0].cells["helpfulness/plain"].value == pytest.approx(expected)


def test_nothing_is_extrapolated_and_that_is_said(tmp_path, capsys):
    for coefficient, kl in ((0.4, 1.0), (0.2, 3.0)):
        point(tmp_path, ppo(coefficient), kl, 1.0)
    point(tmp_path, dpo(), 2.5, 1.0)
    assert main([str(tmp_path), "--at-kl", "2", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("| metric | ppo |")
    assert "- dpo at KL 2 is not known and not extrapolated: seed 0: KL 2.5." in out
    assert "-m algo=dpo algo.beta=0.3,1 seed=0" in out, "more of it is less KL"
    assert main([str(tmp_path), "--at-kl", "4", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "ppo at KL 4 is not known and not extrapolated: seed 0: KL 1 to 3." in out and "interpolated" not in out
    assert "-m algo=ppo algo.kl_coef=0.02,0.067 seed=0" in out


def test_a_sweep_is_proposed_on_each_side_that_a_seed_lacks(tmp_path, capsys):
    for seed, kls in ((0, (1.0, 3.0)), (1, (2.5, 4.0)), (2, (0.5, 1.5))):
        for coefficient, kl in zip((0.4, 0.2), kls, strict=True):
            point(tmp_path, ppo(coefficient, seed=seed), kl, 1.0)
    assert main([str(tmp_path), "--at-kl", "2", "--format", "markdown"]) == 0
    assert "-m algo=ppo algo.kl_coef=0.02,0.067,1.2,4 seed=1,2" in capsys.readouterr().out
    assert main([str(tmp_path), "--at-kl", "0", "--format", "markdown", "--plots", str(tmp_path / "plots")]) == 0
    out = capsys.readouterr().out
    assert "A sweep" not in out, "there is the SFT model, and no algorithm"
    assert "--plots: this table has nothing to draw." in out and not (tmp_path / "plots").exists()


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_a_frontier_that_reaches_the_target_nowhere_is_what_is_missing_and_not_runs(tmp_path, capsys, form):
    point(tmp_path, ppo(0.4), 1.0, 1.0)
    assert main([str(tmp_path), "--at-kl", "2", "--format", form]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "No finished run" not in out
    lacking = "Nothing can be compared at KL 2: no algorithm has runs of one seed on both sides of it."
    assert 0 <= out.index(lacking) < out.index("ppo at KL 2 is not known") < out.index("A sweep that may reach it")


def test_what_is_no_option_of_the_algorithm_is_no_frontier(tmp_path):
    for name, kl in (("honest", 1.0), ("mild", 3.0)):
        point(tmp_path, ppo(annotator={"b": name}), kl, 1.0, annotator=name)
    table, _ = at(tmp_path, AT_KL, 2.0)
    assert table.rows == () and len([n for n in table.notes if "not extrapolated" in n]) == 2


def test_two_frontiers_of_one_name_are_two_rows(tmp_path):
    """The sweep was half run, the code changed, and the other half was run."""
    for code, score, coefficients in (("aaaaaaaa", 1.0, (0.1, 0.5)), ("bbbbbbbb", 5.0, (0.2, 0.4))):
        for coefficient in coefficients:
            point(tmp_path, ppo(coefficient), 0.4 / coefficient, score, code=code)
    table, _ = at(tmp_path, AT_KL, 1.5)
    found = {row.label[-1]: row.cells["helpfulness/plain"].value for row in table.rows}
    assert found == pytest.approx({"code=aaaaaaaa": 1.0, "code=bbbbbbbb": 5.0})


def test_what_has_no_price_of_a_nat_gets_no_sweep(tmp_path, capsys):
    """The beta of SimPO is a scale of its reward: more of it is not less KL. IPO names its price tau."""
    for algo, option in (("simpo", "beta"), ("ipo", "tau"), ("made_elsewhere", "beta"), ("orpo", "weight")):
        point(tmp_path, {"seed": 0, "algo": {"name": algo, option: 0.1}}, 1.0, 1.0, algo=algo)
    assert main([str(tmp_path), "--at-kl", "2", "--format", "markdown"]) == 0
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if " at KL 2 is not known" in line}
    assert (
        "algo.tau=0.01,0.033 seed=0" in lines["ipo"]
        and "algo.beta=0.01,0.033" in lines["made\_elsewhere".replace("\\", "")]
    )
    for none in ("simpo", "orpo"):
        assert "A sweep" not in lines[none] and "None of its options is a price of KL" in lines[none]


def test_a_baseline_that_does_not_reach_the_target_says_so(tmp_path, capsys):
    for coefficient, kl in ((0.4, 1.0), (0.2, 3.0)):
        point(tmp_path, ppo(coefficient), kl, 1.0)
    point(tmp_path, dpo(), 2.5, 1.0)
    assert main([str(tmp_path), "--at-kl", "2", "--baseline", "dpo"]) == 2
    assert "--baseline dpo: dpo at KL 2 is not known and not extrapolated: seed 0: KL 2.5." in capsys.readouterr().err
    assert main([str(tmp_path), "--at-kl", "2", "--baseline", "nope"]) == 2
    assert "Unknown row 'nope'" in capsys.readouterr().err


def test_a_row_between_two_runs_has_no_responses_to_win_by(tmp_path, capsys):
    """The mean of two responses' scores spreads less than a response's."""
    for seed in (0, 1):
        for coefficient, kl in ((0.4, 1.0), (0.2, 3.0)):
            point(tmp_path, ppo(coefficient, seed=seed), kl, kl)
            point(tmp_path, {"seed": seed, "algo": {"name": "dpo", "beta": coefficient}}, kl, 0.0)
    assert main([str(tmp_path), "--at-kl", "2", "--ratings", SCORE]) == 2
    assert "no responses of its own" in capsys.readouterr().err
    for target, known in (("--at-kl=2", False), ("--mix-code", True)):
        more = ["--baseline", "dpo" if not known else "dpo beta=0.2", "--primary", SCORE, "--format", "json"]
        assert main([str(tmp_path), target, *more]) == 0
        effects = [d["effect_size"] for d in json.loads(capsys.readouterr().out)["differences"]]
        assert effects and all((effect is not None) is known for effect in effects)


def test_how_often_runs_are_evaluated_on_their_way_makes_no_frontier_of_its_own(tmp_path):
    for coefficient, kl, every in ((0.4, 1.0, 0), (0.2, 3.0, 10)):
        point(tmp_path, ppo(coefficient) | {"eval": {"every": every}}, kl, kl)
    table, _ = at(tmp_path, AT_KL, 2.0)
    assert [row.cells["helpfulness/plain"].value for row in table.rows] == pytest.approx([2.0])


def test_what_was_not_answered_at_a_neighbour_is_not_answered_between(tmp_path):
    for coefficient, kl in ((0.4, 1.0), (0.2, 3.0)):
        run = point(tmp_path, ppo(coefficient), kl, kl)
        write_scores(run, "helpfulness/asked", [1.0] * 39 + [math.nan] * (kl == 3.0))
    table, _ = at(tmp_path, AT_KL, 2.0)
    assert table.rows[0].cells["helpfulness/asked"].missing == 1


def test_the_kl_that_is_matched_is_not_tested(tmp_path, capsys):
    for seed in (0, 1, 2):
        for coefficient, kl in ((0.4, 1.0), (0.2, 3.0)):
            for settings in (ppo(coefficient, seed=seed), {"seed": seed, "algo": {"name": "dpo", "beta": coefficient}}):
                run = point(tmp_path, settings, kl + seed / 10, kl)
                write_scores(run, "optimization/kl", [kl + seed / 10 + x / 100 for x in range(40)])
    named = ["--primary", "optimization/kl", "--primary", "helpfulness/score"]
    assert main([str(tmp_path), "--at-kl", "2", "--baseline", "dpo", *named, "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    found = content["differences"]
    assert "optimization/kl is what is matched: it is not tested." in content["notes"]
    assert [row["metrics"]["optimization/kl"]["value"] for row in content["rows"]] == [2.0, 2.0]
    assert {d["metric"]: d["primary"] for d in found} == {"helpfulness/score": True}


def test_a_run_without_a_kl_has_no_place_on_the_frontier(tmp_path):
    write(tmp_path, ppo(0.1))
    table, _ = at(tmp_path, AT_KL, 2.0)
    assert table.rows == () and "seed 0: no KL" in table.notes[1]


def test_differences_at_a_matched_kl_are_tested_on_the_same_examples(tmp_path):
    for seed in (0, 1, 2):
        for settings, better in ((ppo, 1.0), (dpo, 0.0)):
            for coefficient, kl in ((1, 1.0), (2, 3.0)):
                given = settings(seed=seed)
                given["algo"] = {**given["algo"], "coef": coefficient}
                point(tmp_path, given, kl + 0.1 * seed, better + kl)
    table, examples = at(tmp_path, AT_KL, 2.0)
    found = {d.metric: d for d in differences(table, "dpo", examples, primary=[SCORE])}[SCORE]
    assert (found.row, found.seeds, found.examples) == (("ppo",), 3, 40)
    assert found.value == pytest.approx(1.0) and found.significant


def test_budgets_are_matched_over_runs_of_different_length(tmp_path, capsys):
    for updates, seconds, score in ((10, 100.0, 1.0), (20, 200.0, 2.0)):
        point(tmp_path, {"algo": {"name": "ppo", "updates": updates}, "seed": 0}, 1.0, score, seconds=seconds)
    table, _ = at(tmp_path, AT_BUDGET, 125.0)
    assert table.rows[0].cells["helpfulness/plain"].value == pytest.approx(1.25)
    assert table.rows[0].seconds == pytest.approx(125.0)
    assert main([str(tmp_path), "--format", "markdown"]) == 2
    assert "algo.updates" in capsys.readouterr().err
    assert main([str(tmp_path), "--at-budget", "125", "--format", "markdown"]) == 0
    assert re.search(r"\| helpfulness/plain ↑ \| 1\.25", capsys.readouterr().out)


def test_of_an_unknown_kl_nothing_is_proposed(tmp_path, capsys):
    """As of best-of-n, which does not learn: to learn longer is no way for it."""
    write(tmp_path, {"seed": 0, "algo": {"name": "best_of_n", "n": 4}}, algo="best_of_n")
    assert main([str(tmp_path), "--at-kl", "2", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "not extrapolated: seed 0: no KL." in out and "how fast it learns" not in out
