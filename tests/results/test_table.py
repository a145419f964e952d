"""The table, from run directories on disk to text."""

import csv
import dataclasses
import io
import json
import math
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from rich.console import Console

from alignbench import Metric
from alignbench.results.compared.paired import differences
from alignbench.results.compared.statistics import interval_over_seeds
from alignbench.results.compared.table import GAP, GOLD, Table, baseline_row, build_table
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.record import Cost, Status
from alignbench.results.disk.runs import find_runs
from alignbench.results.shown import export, render
from alignbench.results.shown.cells import NOT_APPLICABLE, costs
from alignbench.results.shown.grid import latex_text
from tests.results.on_disk import (
    HIGHER,
    NEITHER,
    dpo,
    measured,
    ppo,
    row,
    table_of,
    write,
    write_scores,
    write_with_baseline,
)
from tests.results.on_disk import compare as main


def terminal(table: Table, width: int = 100, found=()) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render.terminal(table, width, found))
    return console.file.getvalue()


class TestRows:
    def test_an_sft_model_without_a_proxy_reward_is_one_with_its_copy_that_has_one(self, tmp_path):
        metrics = {"helpfulness/accuracy": Metric(0.5, 0.05, 100, HIGHER)}
        proxy = metrics | {"optimization/proxy_reward": Metric(0.1, 0.05, 100, HIGHER)}
        for seed in (0, 1):
            write(tmp_path, dpo(seed), baseline=True, metrics=metrics, config_hash="without")
            write(tmp_path, ppo(seed=seed), baseline=True, metrics=proxy, reward="learned", config_hash="with")
        (only,) = table_of(tmp_path).rows
        assert only.seeds == (0, 1)
        assert set(only.cells) == set(proxy)

    def test_a_row_is_compared_with_the_sft_models_of_all_its_seeds(self, tmp_path):
        """Also where one of them alone was scored by another run: DPO of two seeds beside PPO of one."""
        metrics = {"helpfulness/accuracy": Metric(0.5, 0.05, 100, HIGHER)}
        proxy = metrics | {"optimization/proxy_reward": Metric(0.1, 0.05, 100, HIGHER)}
        for seed in (0, 1):
            write(tmp_path, dpo(seed), baseline=True, metrics=metrics, config_hash="without")
            write(tmp_path, dpo(seed), metrics=metrics)
        write(tmp_path, ppo(seed=0), baseline=True, metrics=proxy, reward="learned", config_hash="with")
        table = table_of(tmp_path)
        (row,) = (row for row in table.rows if row.label[0] == "dpo")
        own = baseline_row(row, table)
        assert own is not None and own.seeds == row.seeds == (0, 1)
        for run in find_runs([tmp_path])[0]:
            write_scores(RunDirectory(run.path), "helpfulness/accuracy", [0.0, 1.0] * 20)
        tested = {d.row for d in differences(table_of(tmp_path))}
        assert tested == {("dpo",)}, "the SFT model that both kinds of run measured is not held against itself"

    def test_an_sft_model_that_differs_is_no_copy(self, tmp_path):
        proxy = {"optimization/proxy_reward": Metric(0.1, 0.05, 100, HIGHER)}
        same = {"helpfulness/accuracy": Metric(0.5, 0.05, 100, HIGHER)}
        write(tmp_path, ppo(), baseline=True, metrics=proxy | same, reward="learned", config_hash="with")
        other = {"helpfulness/accuracy": Metric(0.6, 0.05, 100, HIGHER)}
        write(tmp_path, dpo(), baseline=True, metrics=other, config_hash="other numbers")
        write(tmp_path, dpo() | {"eval": {"prompts": 5}}, baseline=True, metrics=same, config_hash="other prompts")
        write(tmp_path, dpo(seed=1), baseline=True, metrics=same, config_hash="another seed")
        assert len(table_of(tmp_path).rows) == 4

    def test_seeds_of_other_code_are_a_row_of_their_own(self, tmp_path, capsys):
        """A plugin that was edited between two seeds is two algorithms."""
        for seed, value, code in ((0, 0.5, "aaaaaaaa01"), (1, 0.7, "aaaaaaaa01"), (2, 0.9, "bbbbbbbb02")):
            write_with_baseline(tmp_path, ppo(seed=seed), value, sft_value=value - 0.4, code=code)
        write_with_baseline(
            tmp_path, dpo(seed=2), 0.8, sft_value=0.5, code="bbbbbbbb02"
        )  # brings the SFT model's latest copy
        table = table_of(tmp_path)
        assert [r.label for r in table.rows] == [
            *(("sft", "code=sftaaaaa"), ("sft", "code=sftbbbbb")),
            *(("dpo",), ("ppo", "code=aaaaaaaa"), ("ppo", "code=bbbbbbbb")),
        ]
        assert row(table, "ppo", "code=aaaaaaaa").seeds == (0, 1)
        assert row(table, "ppo", "code=bbbbbbbb").cells["helpfulness/accuracy"].value == 0.9
        said = "ppo: seeds 0, 1 by code aaaaaaaa; seed 2 by code bbbbbbbb: not pooled (compare --mix-code does it)."
        assert said in table.notes
        for code in ("aaaaaaaa", "bbbbbbbb"):  # each is compared with the SFT model that it started from
            assert baseline_row(row(table, "ppo", f"code={code}"), table).label == ("sft", f"code=sft{code[:5]}")

        main([str(tmp_path), "--mix-code", "--format", "json"])
        rows = json.loads(capsys.readouterr().out)["rows"]
        (pooled,) = [each for each in rows if each["label"] == ["ppo"]]
        assert pooled["seeds"] == [0, 1, 2]

    def test_records_that_know_no_code_are_pooled_among_themselves(self, tmp_path):
        for seed, code in ((0, ""), (1, ""), (2, "aaaaaaaa01")):
            write(tmp_path, ppo(seed=seed), code=code)
        assert [r.seeds for r in table_of(tmp_path).rows] == [(2,), (0, 1)]

    def test_the_sft_row_comes_first_and_once(self, tmp_path):
        write_with_baseline(tmp_path, ppo(), 0.75)
        write_with_baseline(tmp_path, dpo(), 0.625)
        table = table_of(tmp_path)
        assert [r.label for r in table.rows] == [("sft",), ("dpo",), ("ppo",)]
        text = terminal(table)
        header = text.splitlines()[0].split()
        assert header == ["sft", "dpo", "ppo"]
        assert re.search(r"accuracy ↑ +0\.50 ±0\.10 +0\.62 ±0\.10 +0\.75 ±0\.10\n", text)
        assert "seconds" in text and "30" in text

    def test_what_is_known_has_no_interval(self, tmp_path):
        """The SFT model against itself: half of all pairs won, no KL, and neither was drawn."""
        ties = Metric(0.5, 0.0, 100, HIGHER, clusters=100, low=0.46, high=0.54, share=True)
        known = {"helpfulness/win_rate": ties, "optimization/kl": measured(0.0, 0.0, 100, NEITHER)}
        won = {
            "helpfulness/win_rate": measured(0.7, 0.01, 100, HIGHER),
            "optimization/kl": measured(2, 0.1, 100, NEITHER),
        }
        run = write(tmp_path, ppo(), metrics=won)
        write(tmp_path, ppo(), baseline=True, metrics=known).path.rename(run.path / "sft")
        text = terminal(table_of(tmp_path))
        assert re.search(r"win_rate ↑ +0\.50 +0\.70 ±0\.02\n", text) and re.search(
            r"kl .? *0\.00 +2\.00 ±0\.20\n", text
        )

    def test_seeds_are_a_mean_and_a_student_interval(self, tmp_path):
        for seed, value in enumerate([0.5, 0.6, 1.0]):
            write(tmp_path, ppo(seed=seed), value)
        write(tmp_path, dpo(), 0.5)
        table = table_of(tmp_path)
        cell = row(table, "ppo").cells["helpfulness/accuracy"]
        assert (cell.value, cell.half_interval) == (pytest.approx(0.7), interval_over_seeds([0.5, 0.6, 1.0]))
        assert row(table, "ppo").seeds == (0, 1, 2)
        one = row(table, "dpo").cells["helpfulness/accuracy"]
        assert (one.low, one.high, one.over_seeds) == (pytest.approx(0.4), pytest.approx(0.6), False)
        text = terminal(table)
        assert "0.50 ±0.10*" in text and "0.70 −0.66 +0.30 " in text.replace("\n", " \n")
        assert "one seed, marked *" in " ".join(text.split())

    def test_a_repeated_seed_counts_once_and_is_said(self, tmp_path):
        write(tmp_path, ppo(), 0.5)
        write(tmp_path, ppo(), 0.5)
        table = table_of(tmp_path)
        assert row(table, "ppo").seeds == (0,)
        assert not row(table, "ppo").cells["helpfulness/accuracy"].over_seeds
        assert table.notes == ("ppo, seed 0: run 2 times. The latest is shown.",)
        write(tmp_path, ppo(), 0.75)
        table = table_of(tmp_path)
        assert row(table, "ppo").cells["helpfulness/accuracy"].value == 0.75
        assert "The numbers differ" in table.notes[0]

    def test_the_latest_of_repeats_is_shown_in_whichever_folder_it_lies_and_however_little_it_knows(self, tmp_path):
        more = {"helpfulness/b": Metric(1.0, 0.05, 100, HIGHER)}
        for folder, started, value, known in (("a", "20261202-run", 0.75, {}), ("b", "20251202-run", 0.5, more)):
            run = write(tmp_path / folder, ppo(), metrics=known | {"helpfulness/c": Metric(value, 0.05, 100, HIGHER)})
            run.path.rename(run.path.parent / started)
        table = build_table(*find_runs([tmp_path / "a", tmp_path / "b"]))
        assert row(table, "ppo").cells["helpfulness/c"].value == 0.75

    def test_a_metric_that_some_seeds_lack_is_said_to_be_of_fewer(self, tmp_path):
        for seed in (0, 1, 2):
            known = {"helpfulness/b": Metric(1.0, 0.05, 100, HIGHER)} if seed else {}
            write(tmp_path, ppo(seed=seed), metrics={"helpfulness/c": Metric(1.0, 0.05, 100, HIGHER), **known})
        assert table_of(tmp_path).notes == ("ppo: of fewer than its 3 seeds are helpfulness/b (2).",)

    def test_a_metric_of_which_no_example_was_answered_is_not_one_that_does_not_apply(self, tmp_path):
        """As by a judge that was out of reach: of a row's only seed, and of one of two."""
        judged = {"helpfulness/judged": Metric(0.5, 0.05, 3, HIGHER)}
        write(tmp_path, ppo(), metrics={"helpfulness/a": Metric(1.0, 0.05, 3, HIGHER)})
        write(tmp_path, dpo(), unanswered={"helpfulness/judged": 3})
        for seed in (0, 1):
            unanswered = {"helpfulness/judged": 3} if seed else {}
            write(tmp_path, ppo(0.9, seed=seed), metrics={} if seed else judged, unanswered=unanswered)
        table = table_of(tmp_path)
        text = render.markdown(table)
        (line,) = (line for line in text.splitlines() if line.startswith("| helpfulness/judged"))
        assert [cell.strip() for cell in line.split("|")[2:5]] == ["‡", "–", "0.50‡"]
        assert "‡ helpfulness/judged of dpo: 3 of 3 examples have no answer; not compared." in text
        assert "‡ helpfulness/judged of ppo kl_coef=0.9: 3 of 6 examples have no answer; not compared." in text
        rewards = {"optimization/proxy_reward": Metric(1.0, 0.1, 3, HIGHER), GOLD: Metric(0.5, 0.1, 3, HIGHER)}
        for seed in (0, 1):
            known = {name: m for name, m in rewards.items() if name != GOLD or not seed}
            write(tmp_path / "gap", ppo(seed=seed), metrics=known, unanswered={GOLD: 3} if seed else {})
        (lacks,) = table_of(tmp_path / "gap").rows
        assert (lacks.cells[GAP].missing, lacks.cells[GAP].asked) == (3, 6), "a gap lacks what its rewards lack"
        told = json.loads(export.as_json(table))["rows"]
        assert [each["unanswered"] for each in told] == [{"helpfulness/judged": 3}, {}, {}]

    def test_sft_rows_that_should_be_equal_and_are_not_are_said(self, tmp_path):
        write_with_baseline(tmp_path, ppo(), 0.75, sft_value=0.5)
        write_with_baseline(tmp_path, dpo(), 0.75, sft_value=0.5)
        assert table_of(tmp_path).notes == ()
        write_with_baseline(tmp_path, ppo(0.2), 0.75, sft_value=0.4)
        (note,) = table_of(tmp_path).notes
        assert note.startswith("sft, seed 0: run 3 times. The numbers differ")

    def test_the_sft_row_that_knows_most_is_shown(self, tmp_path):
        accuracy = {"h/accuracy": measured(0.5, 0.1, 9, HIGHER)}
        proxy = {"o/proxy": measured(0.25, 0.1, 9, HIGHER)}
        for metrics, reward in ((accuracy | proxy, "learned"), (accuracy, None)):
            write(tmp_path, ppo(), baseline=True, metrics=metrics, reward=reward)
        table = table_of(tmp_path)
        assert table.notes == ()
        assert row(table, "sft").cells.keys() == {"h/accuracy", "o/proxy"}

    @pytest.mark.parametrize("status", [Status.RUNNING, Status.FAILED, Status.INTERRUPTED])
    def test_what_did_not_finish_is_listed_and_never_averaged(self, tmp_path, status):
        write(tmp_path, ppo(seed=0), 0.5)
        run = write(tmp_path, ppo(seed=1), 0.9, status=status, error="the loss is NaN")
        table = table_of(tmp_path)
        assert row(table, "ppo").seeds == (0,)
        assert "0.50" in terminal(table) and "0.90" not in terminal(table)
        for text in (terminal(table), render.markdown(table)):
            assert re.search(rf"{run.path.name}: {status.value}.*the loss is NaN", text)

    def test_a_metric_that_lacks_answers_says_so_and_is_not_compared(self, tmp_path):
        write(tmp_path, ppo(), metrics={"h/win": measured(0.75, 0.05, 60, HIGHER, missing=20)})
        table = table_of(tmp_path)
        for text in (terminal(table), render.markdown(table)):
            assert "0.75 ±0.10‡" in text
            assert "‡ h/win of ppo: 20 of 80 examples have no answer; not compared." in text

    def test_a_metric_that_does_not_apply_is_a_dash(self, tmp_path):
        # The row that lacks a metric comes first: it must not push it to the end of its family either.
        last = {"o/length": measured(7.0, 0.1, 9, NEITHER)}
        write(tmp_path, dpo(), metrics=last)
        write(tmp_path, ppo(), metrics={"o/proxy": Metric(1.0, math.nan, 1, HIGHER), **last})
        table = table_of(tmp_path)
        assert list(table.metrics) == ["o/proxy", "o/length"]
        assert re.search(r"proxy ↑ +– +1\.00\n", terminal(table))
        assert "| o/proxy ↑ | – | 1.00 |" in render.markdown(table)

    def test_other_versions_in_one_table_are_said(self, tmp_path):
        write(tmp_path, ppo(seed=0), packages={"torch": "2.13.0"})
        write(tmp_path, ppo(seed=1), packages={"torch": "2.14.0"})
        assert table_of(tmp_path).notes == ("Not the same in all runs: torch (2.13.0, 2.14.0).",)


class TestLabels:
    def labels(self, folder: Path) -> list[str]:
        return [" ".join(r.label) for r in table_of(folder).rows]

    def test_only_what_differs_within_an_algorithm_in_numeric_order(self, tmp_path):
        for settings in (dpo(), ppo(0.2), ppo(0.02), ppo(1e-05)):
            write(tmp_path, settings)
        assert self.labels(tmp_path) == ["dpo", "ppo kl_coef=1e-05", "ppo kl_coef=0.02", "ppo kl_coef=0.2"]

    def test_a_component_is_named_and_its_settings_are_implied(self, tmp_path):
        write(tmp_path, ppo(annotator={"b_agree": 0.0}), annotator="honest")
        write(tmp_path, ppo(annotator={"b_agree": 2.7}), annotator="mild")
        write(tmp_path, ppo(annotator={"b_agree": 2.5}), annotator="mild")
        assert self.labels(tmp_path) == [
            "ppo annotator=honest",
            "ppo annotator=mild annotator.b_agree=2.5",
            "ppo annotator=mild annotator.b_agree=2.7",
        ]

    def test_settings_outside_the_components_and_lists(self, tmp_path):
        write(tmp_path, {**ppo(), "eval": {"prompts": 600}, "flag": True})
        write(tmp_path, {**ppo(), "eval": {"prompts": 50}, "flag": False})
        assert self.labels(tmp_path) == ["ppo eval.prompts=50 flag=false", "ppo eval.prompts=600 flag=true"]

    def test_what_does_not_count_is_not_shown(self, tmp_path):
        write(tmp_path, ppo(seed=0, results_dir="a", tracker={"name": "wandb"}))
        write(tmp_path, ppo(seed=1, results_dir="b", tracker={"name": "none"}))
        assert self.labels(tmp_path) == ["ppo"]

    def test_the_sft_row_says_nothing_of_the_algorithm_or_of_components_it_does_not_know(self, tmp_path):
        for kl in (0.1, 0.2):
            settings = ppo(kl, annotator={"b_agree": kl}, sft={"updates": int(10 * kl)})
            write(tmp_path, settings, baseline=True, annotator=None)
        assert self.labels(tmp_path) == ["sft sft.updates=1", "sft sft.updates=2"]

    def test_versions_of_a_plugin_are_two_rows(self, tmp_path):
        write(tmp_path, ppo(), plugin="mine", plugin_version="1.0")
        write(tmp_path, ppo(), plugin="mine", plugin_version="2.0")
        assert self.labels(tmp_path) == ["ppo mine 1.0", "ppo mine 2.0"]

    def test_an_algorithm_has_the_name_it_asks_for(self, tmp_path):
        write(tmp_path, ppo(), algo_label="PPO (k3)")
        assert self.labels(tmp_path) == ["PPO (k3)"]


class TestDrawing:
    @pytest.mark.parametrize("width", [60, 80, 120])
    def test_a_wide_table_is_cut_into_blocks_and_nothing_is_lost(self, tmp_path, width):
        coefficients = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
        for i, kl in enumerate(coefficients):
            write_with_baseline(tmp_path, ppo(kl), 10 + i)
        text = terminal(table_of(tmp_path), width)
        assert max(map(len, text.splitlines())) <= width and "…" not in text
        for i, kl in enumerate(coefficients):
            assert f"kl_coef={kl}" in text and text.count(f"{10 + i}.00 ±0.10") == 1
        blocks = text.count("helpfulness")
        assert blocks == {60: 5, 80: 3, 120: 2}[width] and text.count("0.50 ±0.10") == blocks  # the SFT model in each

    def test_sft_models_that_leave_no_room_stand_in_blocks_of_their_own(self, tmp_path):
        for trunk in ("shared", "own", "another"):
            for seed in (0, 1):
                write_with_baseline(tmp_path, ppo(seed=seed) | {"model": {"trunk_of_the_value": trunk}}, 0.9)
        text = terminal(table_of(tmp_path), 60)
        assert max(map(len, text.splitlines())) <= 60 and "…" not in text
        assert text.count("0.50") == 3 and text.count("0.90") == 3

    def test_two_labels_of_one_beginning_stay_two_in_a_narrow_terminal(self, tmp_path):
        for trunk in ("shared_with_the_policy", "shared_with_the_reward"):
            write_with_baseline(tmp_path, ppo() | {"model": {"trunk_of_the_value": trunk}}, 1.0)
        text = terminal(table_of(tmp_path), 60)
        assert max(map(len, text.splitlines())) <= 60 and "…" not in text
        assert text.count("policy") == 3 == text.count("reward") and text.count("trunk_of_the_value") == 0
        assert "model.trunk_of_the_value=shared_with_the_policy" in terminal(table_of(tmp_path), 250)

    def test_latex_explains_the_marks_that_it_has(self, tmp_path):
        for seed in (0, 1, 2):
            for settings in (ppo, dpo) if seed == 0 else (dpo,):
                run = write_with_baseline(tmp_path, settings(seed=seed), 0.7)
                for directory, value in ((run, 1.0), (run.baseline(), 0.0)):
                    write_scores(directory, "helpfulness/a_b", [value + i % 7 / 50 for i in range(60)])
        table = table_of(tmp_path)
        found = differences(table, primary=["helpfulness/a_b"])
        assert {(d.row[0], d.over_seeds) for d in found} == {("ppo", False), ("dpo", True)}
        drawn, below = render.latex(table, found).split(r"\end{tabular}".replace("\\\\", "\\"))
        assert r"$\vartriangle$" in drawn and r"$\vartriangle$, *: one seed" in below
        assert r"$\blacktriangle$ $\vartriangle$ better than the baseline: p" in below
        assert "worse" not in below and "other" not in below, "no mark says so"
        assert "[ ]" not in below and "Exploratory" not in below, "it has no table of differences"
        explored = [dataclasses.replace(d, significant=False, primary=False, tests=0) for d in found]
        (told,) = (line for line in render.caption(table, explored) if "*:" in line and "±" not in line)
        assert told == "*: one seed, over examples only, training noise left out."
        none = [dataclasses.replace(d, significant=False, over_seeds=True) for d in found]
        assert "No mark: p ≥ 5% after Holm's" in " ".join(render.caption(table, none))
        unmarked = render.latex(table, none)
        assert r"No mark: p $\geq$ 5\% after" in unmarked and "U+" not in unmarked
        assert latex_text("-0.1 (-2, to [-3] 1e-4 a-5 2026-11-30") == "$-$0.1 ($-$2, to [$-$3] 1e-4 a-5 2026-11-30"
        mixed = [dataclasses.replace(d, effect_size=math.nan) for d in found]
        assert "d_av" in " ".join(render.caption(table, found)) and "d_av" not in " ".join(render.caption(table, mixed))

    def test_an_interval_is_seen_in_each_cell(self, tmp_path):
        """Where it is no rounding error: ±0.000 would look like certainty."""
        for name, half in (("ppo", 0.02), ("dpo", 0.0004), ("kto", 1e-13)):
            metric = Metric(0.5, half / 2, 10, HIGHER, clusters=10, low=0.5 - half, high=0.5 + half)
            write(tmp_path, {"seed": 0, "algo": {"name": name}}, metrics={"exact/objective_gap": metric})
        assert "| 0.5000 ±0.0004 | 0.500 | 0.500 ±0.020 |" in render.markdown(table_of(tmp_path))

    def test_an_interval_ends_where_its_metric_does(self, tmp_path):
        for seed, (distance, accuracy, gold) in enumerate([(0.0, 0.9, -0.1), (0.02, 1.0, 0.1)]):
            values = {
                "exact/total_variation": distance,
                "exact/kl": distance,
                "x/accuracy": accuracy,
                "x/gold_reward": gold,
            }
            metrics = {name: Metric(value, math.nan, 9, NEITHER) for name, value in values.items()}
            write(tmp_path, ppo(seed=seed), metrics={**metrics, "y/accuracy": Metric(85.0 + seed, 1.0, 9, NEITHER)})
        table = table_of(tmp_path)
        half = interval_over_seeds([0.0, 0.02])
        said = dict(line.strip("| ").split(" | ") for line in render.markdown(table).splitlines() if "/" in line)
        assert said["exact/total_variation"] == said["exact/kl"] == f"0.01 −0.01 +{half:.2f}"
        assert said["x/accuracy"] == "0.95 −0.64 +0.05"
        assert said["x/gold_reward"] == "0.00 ±1.27", "it may be negative"
        assert said["y/accuracy"] == "85.50 ±6.35", "in percent"
        assert table.rows[0].cells["exact/kl"].low == pytest.approx(0.01 - half), (
            "whoever computes with it has it whole"
        )

    def test_negative_zero_is_zero(self, tmp_path):
        write(tmp_path, ppo(), -0.0004)
        assert "-0.00" not in terminal(table_of(tmp_path))

    HOSTILE = "[red]a[/] |b|\x1b[31m\n<script>`*"

    def test_hostile_strings_are_shown_and_do_nothing(self, tmp_path):
        write(tmp_path, {"algo": {"name": "ppo", "k": "[bold]x[/bold]|"}})
        write(
            tmp_path,
            {"algo": {"name": "ppo", "k": ""}},
            metrics={f"f/{self.HOSTILE}": Metric(1.0, 0.1, 9, HIGHER)},
            algo_label=self.HOSTILE,
        )
        write(tmp_path, ppo(seed=3), status=Status.FAILED, error=self.HOSTILE)
        table = table_of(tmp_path)
        text = terminal(table, 200)
        assert "\x1b" not in text
        assert text.count("[red]a[/] |b|?[31m?<script>`*") == 3  # label, metric and error, to the letter
        assert "[bold]x[/bold]|" in text
        markdown = render.markdown(table)
        assert "<script>" not in markdown and "\x1b" not in markdown
        lines = [line for line in markdown.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}, "the same number of cells in each line"

    def test_markdown(self, tmp_path):
        write_with_baseline(tmp_path, ppo(), 0.75)
        lines = render.markdown(table_of(tmp_path)).splitlines()
        assert lines[:5] == [
            "| metric | sft | ppo |",
            "| --- | ---: | ---: |",
            "| helpfulness/accuracy ↑ | 0.50 ±0.10 | 0.75 ±0.10 |",
            "| seeds | 1 | 1 |",
            "| seconds | 30 | 30 |",
        ]

    def test_csv_and_json_hold_unrounded_numbers(self, tmp_path):
        write(tmp_path, ppo(), 1 / 3, algo_label="=HYPERLINK(1)", metrics={"a/b": Metric(1 / 3, math.nan, 1, NEITHER)})
        table = table_of(tmp_path)
        (line,) = csv.DictReader(io.StringIO(export.as_csv(table)))
        assert (line["row"], line["metric"], line["direction"]) == ("'=HYPERLINK(1)", "a/b", "neither")
        assert (float(line["value"]), line["low_95"], line["high_95"], line["seeds"]) == (1 / 3, "", "", "1")
        (found,) = json.loads(export.as_json(table))["rows"]
        assert found["metrics"]["a/b"] == {
            "value": 1 / 3, "half_interval_95": None, "low_95": None, "high_95": None, "interval_over": "examples", "direction": "neither",
        }  # fmt: skip


class TestDifferences:
    """How differences are drawn: what they are is in test_paired.py."""

    @pytest.fixture
    def folder(self, tmp_path):
        for seed in (0, 1, 2):
            for settings, shift in ((ppo, 1.0), (dpo, 0.0)):
                run = write_with_baseline(tmp_path, settings(seed=seed), 0.7)
                for directory, value in ((run, shift), (run.baseline(), 0.0)):
                    noise = [((i * 7 + seed * 3 + len(directory.path.name)) % 11 - 5) / 50 for i in range(60)]
                    write_scores(directory, "helpfulness/a_b", [value + x for x in noise])
        return tmp_path

    @pytest.mark.parametrize("width", [60, 100])
    def test_in_the_terminal(self, folder, width):
        table = table_of(folder)
        text = terminal(table, width, differences(table, primary=["helpfulness/a_b"]))
        assert max(map(len, text.splitlines())) <= width
        assert "Difference from sft" in text and text.count("+1.00") == 1
        assert re.search(r"a_b ↑ .*[01]\.\d+ ±0\.\d+ ▲", text)
        assert "Holm's correction for the 2 differences of primary metrics" in " ".join(text.split())
        (one, _) = differences(table, primary=["helpfulness/a_b"])
        assert "for the 2 differences" in " ".join(terminal(table, width, [one]).split()), "shown or not"
        assert "for the one difference of" in " ".join(
            terminal(table, width, [dataclasses.replace(one, tests=1)]).split()
        )
        assert "peak memory" not in text, "nobody knows it"

    def test_the_memory_of_host_and_gpu_are_two_rows(self, tmp_path):
        for seed, gpu in enumerate((3.0, 5.0)):
            cost = Cost({"sft": 1.0}, None, 2**30, int(gpu * 2**30))
            write(tmp_path, ppo(seed=seed), cost=cost)
        write(tmp_path, dpo(), cost=Cost({"sft": 1.0}, None, 2**31))
        table = table_of(tmp_path)
        found = costs(table)
        assert dict(zip([r.label[0] for r in table.rows], found["peak memory, GiB"], strict=True)) == {
            "dpo": "2.00",
            "ppo": "1.00",
        }
        assert sorted(found["peak GPU memory, GiB"]) == ["4.00", NOT_APPLICABLE]
        peaks = {r["row"]: r["peak_gpu_memory_bytes"] for r in csv.DictReader(io.StringIO(export.as_csv(table)))}
        assert sorted(peaks.values()) == ["", str(4.0 * 2**30)]
        assert {r["peak_gpu_memory_bytes"] for r in json.loads(export.as_json(table))["rows"]} == {None, 4.0 * 2**30}

    def test_what_trained_on_no_token_has_no_speed(self, tmp_path):
        write(tmp_path, ppo(), cost=Cost({"sft": 1.0}, 1500.0))
        write(tmp_path, dpo(), cost=Cost({"sft": 1.0}, 0.0))  # as it was once written
        assert sorted(costs(table_of(tmp_path))["tokens per second"]) == ["1500", NOT_APPLICABLE]

    def test_in_latex(self, folder):
        table = table_of(folder)
        lines = render.latex(table, differences(table, primary=["helpfulness/a_b"])).splitlines()
        assert lines[lines.index(r"\begin{tabular}{lrrr}") :][:4] == [
            r"\begin{tabular}{lrrr}",
            r"\toprule",
            r"metric & sft & dpo & ppo \\",
            r"\midrule",
        ]
        (line,) = [line for line in lines if "a\\_b" in line]
        assert line.count("&") == 3 and line.count(r"$\pm$") == 3 and line.count(r"$\blacktriangle$") == 1

    def test_in_csv_and_json(self, folder):
        table = table_of(folder)
        found = differences(table, primary=["helpfulness/a_b"])
        lines = list(csv.DictReader(io.StringIO(export.as_csv(table, found))))
        (line,) = [x for x in lines if x["row"] == "ppo" and x["metric"] == "helpfulness/a_b"]
        (d,) = [d for d in found if d.row == ("ppo",)]
        numbers = [line[key] for key in ("difference", "difference_low_95", "difference_high_95", "p_value", "p_holm")]
        assert [*map(float, numbers)] == [d.value, d.low, d.high, d.p_value, d.p_holm]
        assert (line["baseline"], line["significant"], line["difference_over"]) == ("sft", "true", "seeds")
        assert [x["difference"] for x in lines if x["row"] == "sft"] == ["", ""]
        content = json.loads(export.as_json(table, found))["differences"]
        assert [(x["row"], x["p_holm"]) for x in content] == [(list(d.row), d.p_holm) for d in found]

    def test_a_page_is_written_by_the_report(self, folder, monkeypatch):
        written = []
        report = types.SimpleNamespace(write=lambda *arguments: written.append(arguments))
        monkeypatch.setitem(sys.modules, "alignbench.results.shown.report", report)
        assert main([str(folder), "--output", str(folder / "a.html")]) == 0
        ((runs, table, found, path),) = written
        assert len(runs) == 12 and len(table.rows) == 3 and len(found) == 2 and path == folder / "a.html"

    def test_hostile_strings_do_nothing_in_latex(self, tmp_path):
        write(tmp_path, ppo(), algo_label=r"\input{x} & $a_b^c$ %~#")
        (header,) = [line for line in render.latex(table_of(tmp_path)).splitlines() if line.startswith("metric")]
        assert header == (
            r"metric & \textbackslash{}input\{x\} \& \$a\_b\textasciicircum{}c\$ \%\textasciitilde{}\# \\"
        )


class TestCompare:
    def test_broken_runs_are_named_in_a_line_each_and_the_rest_is_shown(self, tmp_path, capsys):
        write(tmp_path, ppo(), 0.75)
        cut, newer, absent, config = (write(tmp_path, ppo(seed=s), 0.1).path for s in (1, 2, 3, 4))
        (cut / "result.json").write_text((cut / "result.json").read_text()[:200])
        newer_text = re.sub('"schema_version": [0-9]+', '"schema_version": 99', (newer / "result.json").read_text())
        (newer / "result.json").write_text(newer_text)
        (absent / "result.json").unlink()
        (config / "config.yaml").write_text("a: [")
        (tmp_path / "unrelated").mkdir()
        assert main([str(tmp_path), "--format", "markdown"]) == 0
        out = capsys.readouterr().out
        assert "| helpfulness/accuracy ↑ | 0.75 ±0.10 |" in out
        assert re.search(rf"- .*{cut.name}: result.json: not JSON, perhaps cut off", out)
        assert re.search(rf"- .*{newer.name}: result.json: schema version 99 is newer", out)
        assert re.search(rf"- .*{absent.name}: no result.json", out)
        assert re.search(rf"- .*{config.name}: config.yaml is not YAML", out)
        assert "unrelated" not in out and out.count("\n- ") == 4

    def test_a_run_directory_brings_its_sft_row(self, tmp_path, capsys):
        run = write_with_baseline(tmp_path, ppo(), 0.75)
        write(tmp_path, ppo(0.2), 0.25)
        assert main([str(run.path)]) == 0
        out = capsys.readouterr().out
        assert "0.50 ±" in out and "0.75 ±" in out and "0.25 ±" not in out

    def test_a_run_is_found_by_name_in_the_results_folder(self, tmp_path, capsys):
        run = write(tmp_path, ppo(), 0.75)
        assert main([run.path.name, "--results-dir", str(tmp_path)]) == 0
        assert "0.75" in capsys.readouterr().out

    def test_a_run_named_twice_counts_once(self, tmp_path, capsys):
        run = write(tmp_path, ppo(), 0.75)
        assert main([str(tmp_path), str(run.path)]) == 0
        assert "2 times" not in capsys.readouterr().out

    def test_the_model_of_a_run_that_died_early_is_not_a_broken_run(self, tmp_path, capsys):
        run = write(tmp_path, ppo(), status=Status.FAILED, error="x")
        (run.path / "sft" / "model").mkdir(parents=True)
        assert main([str(tmp_path), "--format", "markdown"]) == 0
        assert "no result.json" not in capsys.readouterr().out

    @pytest.mark.parametrize("folder", ["empty", "absent", "file", "broken"])
    def test_nothing_to_show_is_one_line_and_exit_code_2(self, tmp_path, capsys, folder):
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "broken" / "run").mkdir(parents=True)
        (tmp_path / "broken" / "run" / "result.json").touch()
        assert main([str(tmp_path / folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("alignbench: error: ") and error.count("\n") == 1 and folder in error

    def test_a_run_that_was_given_up_keeps_nobody_from_being_compared(self, tmp_path):
        """Its SFT model was trained otherwise: with other data, beside which nothing may stand."""
        write_with_baseline(tmp_path, ppo(), 1.0)
        given_up = write_with_baseline(tmp_path, {**ppo(), "sft": {"learning_rate": 0.5}}, 1.0)
        alone = table_of(tmp_path)
        assert sum(row.baseline for row in alone.rows) == 2
        record = json.loads((given_up.path / "result.json").read_text())
        (given_up.path / "result.json").write_text(json.dumps({**record, "status": "interrupted"}))
        table = table_of(tmp_path)
        assert [row.baseline for row in table.rows] == [True, False] and len(table.incomplete) == 1

    def test_only_unfinished_runs(self, tmp_path, capsys):
        write(tmp_path, ppo(), status=Status.INTERRUPTED)
        assert main([str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "No finished run." in out and "interrupted" in out

    def test_it_imports_nothing_heavy(self, tmp_path):
        write(tmp_path, ppo())
        code = (
            "import sys; from alignbench.commands.compare import main; main(sys.argv[1:]);"
            "sys.exit(','.join({'torch', 'transformers', 'polars', 'scipy', 'hydra', 'evalica', 'pandas'} & sys.modules.keys()) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
