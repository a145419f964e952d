"""What a table says in sentences, and the options that choose what it shows; from folders of runs."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from alignbench import Direction
from alignbench.results.compared import verdict
from alignbench.results.compared.paired import Estimate
from alignbench.results.compared.table import Cell, build_table
from alignbench.results.compared.verdict import words
from alignbench.results.disk.runs import find_runs
from alignbench.results.shown import render
from alignbench.results.shown.render import FOUND_FROM
from tests.results.on_disk import compare, dpo, ppo, write, write_scores
from tests.results.synthetic import difference

GOLD, AGREEMENT = "helpfulness/gold_reward", "sycophancy/agreement"


def runs(folder, effect: float = 0.5, seeds: int = 4, **changes):
    """PPO and DPO on some seeds: PPO's gold reward is higher by `effect`, their agreement is not told apart."""
    rng = np.random.default_rng(0)
    for settings, gold in ((ppo, 2 + effect), (dpo, 2.0)):
        for seed in range(seeds):
            own = settings(seed=seed)
            run = write(folder, own, algo=own["algo"]["name"], **changes)
            write_scores(run, GOLD, list(gold + rng.normal(size=60) * 0.2 + rng.normal() * 0.02))
            write_scores(run, AGREEMENT, list(rng.normal(size=60) * 0.2 + rng.normal() * 0.3))


def shown(capsys, *arguments) -> str:
    assert compare(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def flat(text: str) -> str:
    return " ".join(text.split())


def test_each_two_of_few_rows_are_told_apart_or_not(tmp_path, capsys):
    runs(tmp_path)
    said = flat(shown(capsys, tmp_path))
    assert said.startswith("ppo against dpo (4 seeds): higher gold reward by 0.4"), said
    told, _, open_ = said.partition("; can't be told apart in ")
    assert "agreement" not in told and open_.startswith("sycophancy agreement (") and " seeds)" in open_
    markdown = shown(capsys, tmp_path, "--format", "markdown")
    assert markdown.startswith("- ppo against dpo")
    found = json.loads(shown(capsys, tmp_path, "--format", "json"))["verdict_differences"]
    gold, agreement = (next(d for d in found if d["metric"] == metric) for metric in (GOLD, AGREEMENT))
    assert gold["p_holm"] < 0.05 < agreement["p_holm"] and {d["tests"] for d in found} == {len(found)}
    assert (gold["row"], gold["baseline"]) == (["ppo"], ["dpo"])
    assert f"Told apart means p < 5% after Holm's correction for {len(found)} differences." in said


def test_what_is_no_difference_is_not_said_to_be_one(tmp_path, capsys):
    runs(tmp_path, effect=0.0)
    said = shown(capsys, tmp_path, "--format", "markdown").splitlines()[0]
    assert said.startswith("- ") and "can't be told apart in gold reward (" in said
    assert "higher" not in said and "lower" not in said


def test_one_seed_says_that_it_leaves_training_noise_out_and_stands_in_the_head(tmp_path, capsys):
    runs(tmp_path, seeds=1)
    text = shown(capsys, tmp_path, "--format", "markdown")
    assert "(one seed: training noise is left out)" in text.splitlines()[0]
    write_scores(write(tmp_path, ppo(seed=1)), GOLD, [2.0, 3.0])
    text = shown(capsys, tmp_path, "--format", "markdown")
    assert "| metric | dpo (1 seed) | ppo |" in text


def test_rows_that_are_shown_by_force_are_not_judged(tmp_path, capsys):
    runs(tmp_path)
    write(tmp_path, {**ppo(), "data": {"world_seed": 7}}, data="hh", config_hash="other")
    assert "against" not in shown(capsys, tmp_path, "--force", "--format", "markdown").partition("| metric")[0]


@pytest.mark.parametrize(
    ("value", "half", "significant", "expected"),
    [
        (0.08, 0.03, True, "higher KL by 0.08 (0.05 to 0.11)"),
        (-0.08, 0.075, True, "lower KL by 0.080 (0.005 to 0.155)"),  # the near end is not 0.00
        (0.0003, 0.00012, True, "higher KL by 0.0003 (0.0002 to 0.0004)"),
        (-0.0035, 0.0103, False, "KL (0.00, -0.01 to +0.01)"),
        (-0.0035, 0.0083, False, "KL (-0.004, -0.012 to +0.005)"),
    ],
)
def test_a_difference_and_its_interval_have_as_many_decimals(value, half, significant, expected):
    ends = {"low": value - half, "high": value + half}
    said = verdict._sentence(
        [difference(("ppo",), metric="optimization/kl", value=value, significant=significant, **ends)]
    )
    assert expected in said


def test_seeds_needed_are_those_of_a_simulation():
    """Differences of one value a seed, of a known spread: as many seeds as said find them in about 80% of cases."""
    spread, effect = 0.3, 0.25
    estimate = Estimate(effect, spread**2 / 5, 4.0, 0.0, 0.0, math.nan, over_seeds=True)
    needed = int(estimate.seeds_needed(5, 1))
    rng, found = np.random.default_rng(0), []
    for _ in range(4000):
        values = effect + spread * rng.normal(size=needed)
        again = Estimate(values.mean(), values.var(ddof=1) / needed, needed - 1.0, 0.0, 0.0, math.nan, over_seeds=True)
        found.append(again.p_value < 0.05)
    assert 0.77 < np.mean(found) < 0.87, (needed, np.mean(found))
    assert Estimate(effect, spread**2 / 5, 4.0, 1.0, 1.0, 99.0, over_seeds=True).seeds_needed(5, 1) == math.inf
    assert math.isnan(Estimate(effect, 0.0, math.nan, 0.01, 0.01, 99.0, over_seeds=False).seeds_needed(1, 1))
    assert estimate.seeds_needed(5, 10) > needed, "more tests take more seeds"
    agreeing = Estimate(effect, 1e-6, 4.0, 0.0, 0.02, 99.0, over_seeds=True)
    by_hand = 5 * 0.02 * (1.984 + 0.845) ** 2 / effect**2  # the noise of their examples falls as seeds are added
    assert agreeing.seeds_needed(5, 1) == math.ceil(by_hand) == 13


@pytest.mark.parametrize("tests", [1, 6])
def test_a_detectable_difference_is_found_as_often_as_is_said(tests):
    """Seeds and prompts both add noise; the difference is one of several, whose p-values are held to LEVEL / tests."""
    by_seed, by_prompt, seeds, prompts = 0.3, 2.0, 5, 200
    found = []
    size = Estimate(
        0.0, by_seed**2 / seeds, seeds - 1.0, by_prompt**2 / prompts, by_prompt**2 / prompts, prompts - 1.0, True
    )
    effect = size.detectable(tests)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        of_seeds, of_prompts = by_seed * rng.normal(size=seeds), by_prompt * rng.normal(size=prompts)
        again = Estimate(
            effect + of_seeds.mean() + of_prompts.mean(),
            of_seeds.var(ddof=1) / seeds,
            seeds - 1.0,
            of_prompts.var(ddof=1) / prompts,
            of_prompts.var(ddof=1) / prompts,
            prompts - 1.0,
            over_seeds=True,
        )
        found.append(again.p_value < 0.05 / tests)
    assert 0.76 < np.mean(found) < 0.88, (effect, np.mean(found))
    alone = Estimate(9.0, 0.0, math.nan, 0.01, 0.01, 99.0, over_seeds=False)
    assert alone.detectable(1) == pytest.approx(0.1 * (1.984 + 0.845), abs=1e-3), "over prompts alone"
    assert alone.detectable(6) > alone.detectable(1)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("helpfulness/gold_reward", "gold reward"),
        ("sycophancy/agreement", "sycophancy agreement"),
        ("optimization/kl", "KL"),
    ],
)
def test_metrics_in_words(metric, expected):
    assert words(metric) == expected


def test_metrics_are_chosen_and_what_is_tested_stays(tmp_path, capsys):
    runs(tmp_path)
    text = shown(capsys, tmp_path, "--metrics", "sycophancy", "--format", "markdown")
    assert AGREEMENT in text and f"| {GOLD}" not in text and "higher gold reward" in text
    against, few = ("--baseline", "dpo"), ("--metrics", "sycophancy")
    texts = [shown(capsys, tmp_path, *against, *asked, "--format", "markdown") for asked in ((), few)]
    (tests,) = {re.findall(r"correction for the (\d+) differences", text)[0] for text in texts}
    found = json.loads(shown(capsys, tmp_path, *against, *few, "--format", "json"))["differences"]
    assert int(tests) == 2 > len(found), "the one that is not shown was tested too"
    assert {d["tests"] for d in found} == {2}
    alone = ("--primary", "helpfulness/gold_reward", "--format", "markdown")
    assert "correction for" not in shown(capsys, tmp_path, *against, *few, *alone), "nothing that is shown was tested"
    assert compare([str(tmp_path), "--metrics", "sycofancy"]) == 2
    assert "sycophancy" in capsys.readouterr().err


def test_power_is_shown_of_what_is_tested_and_is_that_of_json(tmp_path, capsys):
    runs(tmp_path)
    against = ("--baseline", "dpo")
    plain = shown(capsys, tmp_path, *against, "--format", "markdown")
    assert FOUND_FROM not in plain
    text = shown(capsys, tmp_path, *against, "--power", "--format", "markdown")
    drawn = text.partition(FOUND_FROM)[2]
    found = [
        d for d in json.loads(shown(capsys, tmp_path, *against, "--format", "json"))["differences"] if d["primary"]
    ]
    assert found and all(d["detectable"] > 0 for d in found)
    for d in found:
        (line,) = [line for line in drawn.splitlines() if line.startswith(f"| {d['metric']} ")]
        assert f" {d['detectable']:.2f} " in line or f" {d['detectable']:.3f} " in line
    for form in ("csv", "latex"):
        assert compare([str(tmp_path), "--power", "--format", form]) == 2
        assert f"--power is no part of {form}" in capsys.readouterr().err
    assert FOUND_FROM[:40] in shown(capsys, tmp_path, *against, "--power")


@pytest.mark.parametrize(
    ("metric", "baseline", "size", "expected"),
    [
        ("helpfulness/lc_win_rate", 0.5, 0.51, "none"),
        ("helpfulness/lc_win_rate", 0.5, 0.49, "0.49"),
        ("diversity/across_self_bleu", 0.9, 0.8, "0.80"),
        ("diversity/across_self_bleu", 0.9, 0.95, "none"),
        ("helpfulness/lc_win_rate", 50.0, 0.6, "0.60"),  # in percent: another meaning of the name
        ("optimization/kl", 0.0, 40.0, "40.00"),
    ],
)
def test_a_size_that_no_difference_can_have_is_none(metric, baseline, size, expected, tmp_path):
    runs(tmp_path)
    table = build_table(*find_runs([tmp_path]))
    rows = [replace(row, cells={metric: Cell(baseline, math.nan, math.nan, True)}) for row in table.rows[:2]]
    table = replace(table, rows=tuple(rows), metrics={metric: Direction.NEITHER})
    one = replace(difference(rows[1].label, metric=metric), baseline=rows[0].label, detectable=size)
    text = render.markdown(table, [one], power=True)
    said = text.partition(FOUND_FROM)[2]
    assert f"| {expected} |" in said
    assert ("not even the largest" in said) == (expected == "none")


@pytest.mark.parametrize("instead", [["--overoptimisation"], ["--sameness"], ["--ratings", "a/b"]])
@pytest.mark.parametrize("useless", [["--power"], ["--baseline", "x"], ["--metrics", "a/b"], ["--primary", "a/b"]])
def test_what_is_about_differences_is_refused_where_none_is_shown(instead, useless, tmp_path, capsys):
    runs(tmp_path, seeds=1)
    assert compare([str(tmp_path), *instead, *useless]) == 2
    assert f"{useless[0]} is about differences, and {instead[0]} shows none" in capsys.readouterr().err


def test_two_tables_at_once_are_refused(tmp_path, capsys):
    runs(tmp_path, seeds=1)
    assert compare([str(tmp_path), "--overoptimisation", "--sameness"]) == 2
    assert "--overoptimisation and --sameness are two tables" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--metrics", "--baseline", "--ratings"])
@pytest.mark.parametrize("nothing", ["", " ", ","])
def test_a_name_that_is_none_is_refused(flag, nothing, tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare([str(tmp_path), flag, nothing])
    assert f"argument {flag}: a name is missing" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["nan", "inf", "-1"])
@pytest.mark.parametrize("flag", ["--at-kl", "--at-budget"])
def test_a_target_that_is_no_amount_is_refused(flag, target, tmp_path, capsys):
    runs(tmp_path, seeds=1)
    assert compare([str(tmp_path), f"{flag}={target}"]) == 2
    assert "a number of 0 or more" in capsys.readouterr().err


def test_what_does_not_vary_is_not_certain(tmp_path, capsys):
    """Three questions, all right against all wrong, and one metric that is all right in both."""
    for settings, right in ((ppo, 1.0), (dpo, 0.0)):
        run = write(tmp_path, settings(), algo=settings()["algo"]["name"])
        write_scores(run, GOLD, [right] * 3)
        write_scores(run, AGREEMENT, [1.0] * 3)
    text = shown(capsys, tmp_path, "--baseline", "dpo", "--power", "--format", "markdown")
    assert "can't be told apart in gold reward (+1.00: no score varies" in text and "[1.00" not in text
    found = json.loads(shown(capsys, tmp_path, "--baseline", "dpo", "--format", "json"))["differences"]
    assert {(d["metric"], d["low"], d["p_value"], d["detectable"]) for d in found if d["primary"]} == {
        (GOLD, None, 1.0, None),
        (AGREEMENT, None, 1.0, None),
    }
    compare([str(tmp_path), "--baseline", "dpo", "--output", str(tmp_path / "report.html")])
    assert "nan" not in (tmp_path / "report.html").read_text().partition("<table")[2].partition("</table>")[0]


def test_a_file_has_no_colours_of_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    runs(tmp_path)
    for asked in ((), ("--ratings", GOLD)):
        compare([str(tmp_path), *asked, "--output", str(tmp_path / "out.txt")])
        assert "\x1b" not in (tmp_path / "out.txt").read_text()


def test_that_metrics_leave_nothing_for_power_is_said(tmp_path, capsys):
    runs(tmp_path)
    against = ("--baseline", "dpo", "--power", "--primary", GOLD, "--format", "markdown")
    assert "--power: no tested difference" not in shown(capsys, tmp_path, *against)
    assert "--power: no tested difference" in shown(capsys, tmp_path, *against, "--metrics", "sycophancy")


@pytest.mark.parametrize("other", [["--at-kl", "1"], ["--at-budget", "9"], ["--plots", "plots"]])
@pytest.mark.parametrize("flag", ["--sameness", "--overoptimisation"])
def test_two_questions_at_once_are_refused(tmp_path, capsys, flag, other):
    runs(tmp_path)
    assert compare([str(tmp_path), flag, *other]) == 2
    assert f"{flag} " in capsys.readouterr().err


def test_that_power_has_nothing_to_say_is_said(tmp_path, capsys):
    runs(tmp_path, seeds=1)
    assert "--power: no tested difference" in shown(
        capsys, tmp_path, "--only", "algo=ppo", "--power", "--format", "markdown"
    )


def test_only_takes_several_values(tmp_path, capsys):
    runs(tmp_path, seeds=1)
    write(tmp_path, {"algo": {"name": "kto"}, "eval": {"prompts": 600}, "seed": 0}, algo="kto")
    head = (
        shown(capsys, tmp_path, "--only", "algo=ppo,dpo", "--format", "markdown")
        .partition("| metric")[2]
        .splitlines()[0]
    )
    assert "ppo" in head and "dpo" in head and "kto" not in head


def test_an_ending_that_names_no_format_is_refused(tmp_path, capsys):
    runs(tmp_path, seeds=1)
    assert compare([str(tmp_path), "--output", str(tmp_path / "table.xlsx")]) == 2
    assert ".csv" in capsys.readouterr().err and not (tmp_path / "table.xlsx").exists()


def test_details_of_a_refusal_are_told_where_they_are_asked_for(tmp_path, capsys):
    write(tmp_path, {**ppo(), "sft": {"updates": 1}, "eval": {"prompts": 1}})
    write(tmp_path, {**ppo(), "sft": {"updates": 2}, "eval": {"prompts": 2}}, config_hash="other")
    assert compare([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert compare([str(tmp_path), "--verbose"]) == 2
    err = capsys.readouterr().err
    assert "eval.prompts" in err and "sft.updates" in err


def test_latex_has_caption_and_label_and_compiles(tmp_path, capsys):
    runs(tmp_path)
    text = shown(capsys, tmp_path, "--format", "latex")
    assert r"\caption{ppo against dpo" in text and r"\label{tab:alignbench}" in text
    if not (pdflatex := shutil.which("pdflatex")):
        pytest.skip("no TeX is installed: Debian's texlive-latex-base has one")
    document = "\\documentclass{article}\n\\usepackage{amssymb}\n\\begin{document}\n" + text + "\\end{document}\n"
    (tmp_path / "table.tex").write_text(document)
    done = subprocess.run(
        [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]


CSV = "left,right,winner,item\na,b,a,1\nb,a,left,2\na,b,tie,3\na,c,a,1\nb,c,right,2\nc,b,c,3\n"


def test_comparisons_from_elsewhere_are_rated(tmp_path, capsys):
    (tmp_path / "judged.csv").write_text(CSV)
    text = shown(capsys, "--comparisons", tmp_path / "judged.csv", "--format", "csv")
    rows = {line.split(",")[0]: line.split(",") for line in text.splitlines()}
    win_rate = rows["row"].index("average_win_rate")
    assert float(rows["a"][win_rate]) == pytest.approx((0.5 + 1) / 2)  # a-b: won, lost, drawn; a-c: won
    assert float(rows["b"][win_rate]) == pytest.approx((0.5 + 0) / 2)
    assert rows["c"][rows["row"].index("games")] == "3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("winner", "winer"), "no column winner"),
        (("a,b,a,1", "a,b,z,1"), "line 2: winner is 'z'"),
        (("a,b,a,1", "a,a,a,1"), "line 2: left and right must be two names"),
        ((CSV[23:], ""), "no comparisons of two"),
    ],
)
def test_comparisons_that_cannot_be_read_name_their_line(tmp_path, capsys, change, message):
    (tmp_path / "judged.csv").write_text(CSV.replace(*change))
    assert compare(["--comparisons", str(tmp_path / "judged.csv")]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_what_a_record_says_moves_no_terminal(tmp_path, capsys):
    for settings, count in ((ppo, 1), (dpo, 2)):
        write(tmp_path, settings(), algo=settings()["algo"]["name"], counts={"rows\x1b[31m": count})
    for form in ("text", "markdown", "csv", "latex", "json"):
        assert compare([str(tmp_path), "--format", form, "--force"]) == 0
        said = capsys.readouterr()
        assert "number of rows" in said.out + said.err and "\x1b[31m" not in said.out + said.err
