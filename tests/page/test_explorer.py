"""The results explorer's answers: what it shows of a folder, and what it says where there is nothing to show."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from alignbench.commands.cli import run_command
from alignbench.page.explorer import library, tables
from alignbench.page.server import create_app
from alignbench.page.settings import PageSettings
from alignbench.results.compared.paired import differences
from alignbench.results.compared.table import build_table
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import find_runs
from alignbench.results.shown import render
from alignbench.results.shown.cells import marked
from tests.results.on_disk import dpo, ppo, write, write_scores, write_with_baseline
from tests.results.synthetic import HOSTILE, write_run

HOME = "http://127.0.0.1:8400"


def client(folder: Path) -> TestClient:
    return TestClient(create_app(PageSettings(folder)), base_url=HOME)


def ask(site: TestClient, name: str, **asked: Any) -> dict[str, Any]:
    answer = site.get(f"/results/{name}", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(site: TestClient, name: str, **asked: Any) -> str:
    answer = site.get(f"/results/{name}", params=asked)
    assert answer.status_code == 400, answer.text
    assert "\n" not in answer.text
    return answer.text


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the folder at every question, and waits for it."""
    monkeypatch.setattr(library, "CHECKED_EVERY", 0.0)
    monkeypatch.setattr(library, "QUICK", 60.0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """PPO at two coefficients and DPO, three seeds, one metric whose examples are told apart by their differences."""
    results = tmp_path / "runs"
    for seed in range(3):
        for settings, better in ((ppo(0.1, seed), 0.5), (ppo(0.5, seed), 0.2), (dpo(seed), 0.0)):
            run = write_with_baseline(results, settings, 1.0)
            noise = [0.01 * ((7 * i + seed) % 5) for i in range(40)]
            write_scores(run, "helpfulness/gold_reward", [better + n for n in noise])
            write_scores(RunDirectory(run.path / "sft"), "helpfulness/gold_reward", noise)
    yield results


class TestTable:
    def test_it_says_what_compare_says(self, folder: Path) -> None:
        table = build_table(*find_runs([folder]))
        shown = ask(client(folder), "table")
        texts = marked(table, ())
        assert [row["label"] for row in shown["rows"]] == [list(row.label) for row in table.rows]
        assert [metric["name"] for metric in shown["metrics"]] == list(table.metrics)
        for i, row in enumerate(shown["rows"]):
            assert {name: cell[0] for name, cell in row["cells"].items()} == {
                name: found[i].strip() for name, found in texts.items()
            }
        assert shown["caption"] == render.caption(table)

    def test_the_differences_are_those_of_compare(self, folder: Path) -> None:
        expected = differences(build_table(*find_runs([folder])))
        shown = ask(client(folder), "differences")["differences"]
        assert {(d["row"], d["metric"]): (d["value"], d["significant"]) for d in shown} == {
            (" ".join(d.row), d.metric): (f"{d.value:+.3f}", d.significant) for d in expected
        }
        assert any(d["mark"] == "▲" for d in shown)

    def test_the_verdict_is_that_of_compare(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = ask(client(folder), "differences")["verdict"]
        run_command(["compare", str(folder), "--format", "json"])
        assert said and said == json.loads(capsys.readouterr().out)["verdict"]

    def test_what_is_tested_does_not_depend_on_what_is_looked_at(self, folder: Path) -> None:
        page, name = client(folder), "helpfulness/accuracy"
        assert ask(page, "table")["primary"] == ["helpfulness/gold_reward", name]
        assert ask(page, "table", metric=name)["primary"] == ["helpfulness/gold_reward", name]
        holm = {
            d["row"]: d["p_holm"] for d in ask(page, "differences", metric="helpfulness/gold_reward")["differences"]
        }
        alone = ask(page, "differences", primary="helpfulness/gold_reward")["differences"]
        assert {d["row"]: d["p_holm"] for d in alone if d["primary"]} == holm
        assert ask(page, "table", primary=name)["primary"] == [name]
        assert any("chosen for this table" in note for note in ask(page, "table", primary=name)["notes"])

    def test_rows_metrics_and_baseline_are_chosen(self, folder: Path) -> None:
        page = client(folder)
        assert [r["name"] for r in ask(page, "table", only="algo=dpo")["rows"]] == ["dpo"]
        assert "KEY=VALUE" in refused(page, "table", only="algo")
        row = "ppo kl_coef=0.1"
        chosen = ask(page, "table", row=row, metric="helpfulness/gold_reward")
        assert [r["name"] for r in chosen["rows"]] == ["sft", row], "and what it is compared with"
        assert [m["name"] for m in chosen["metrics"]] == ["helpfulness/gold_reward"]
        assert len(chosen["every_metric"]) == 2
        against = ask(page, "differences", row=row, baseline="dpo", metric="helpfulness/gold_reward")["differences"]
        assert [(d["row"], d["baseline"], d["value"]) for d in against] == [(row, "dpo", "+0.500")]

    def test_it_is_sorted_by_any_column_and_what_lacks_it_comes_last(self, folder: Path) -> None:
        write(folder, {**ppo(0.9), "seed": 0}, 1.0)
        page = client(folder)
        down = [r["name"] for r in ask(page, "table", sort="-helpfulness/gold_reward")["rows"]]
        assert down == ["ppo kl_coef=0.1", "ppo kl_coef=0.5", *down[2:4], "ppo kl_coef=0.9"]
        up = [r["name"] for r in ask(page, "table", sort="helpfulness/gold_reward")["rows"]]
        assert up[-3:] == ["ppo kl_coef=0.5", "ppo kl_coef=0.1", "ppo kl_coef=0.9"]
        assert "seconds" in refused(page, "table", sort="no/such")

    def test_a_page_holds_so_many_rows(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "ROWS_A_PAGE", 3)
        page = client(folder)
        parts = [ask(page, "table", page=i) for i in (1, 2)]
        assert [len(part["rows"]) for part in parts] == [3, 1]
        assert ask(page, "table", page=99)["page"] == 2
        assert refused(page, "table", page="-1")

    def test_what_does_not_belong_in_one_table_is_shown_and_not_compared(self, folder: Path) -> None:
        write_with_baseline(folder, {**ppo(0.1), "eval": {"prompts": 7}}, 1.0)
        page = client(folder)
        shown = ask(page, "table")
        assert any("evaluation settings" in clash for clash in shown["clashes"]) and shown["refused"]
        assert ask(page, "differences")["differences"] == []
        assert ask(page, "differences", force="1")["differences"]

    def test_rows_are_read_off_at_a_kl(self, tmp_path: Path) -> None:
        for d in (0.5, 1.0, 2.0):
            run = write_run(tmp_path, "ppo", {"kl_coef": 1 / d}, d=d, noise=0)
            for path, kl in ((run, d * d), (run / "sft", 0.0)):
                write_scores(RunDirectory(path), "optimization/kl", [kl + 0.1 * (i % 3) for i in range(30)])
        page = client(tmp_path)
        shown = ask(page, "table", at_kl="1.5", metric="optimization/kl")
        assert {d["metric"] for d in ask(page, "differences")["differences"]} == {"optimization/kl"}
        assert ask(page, "differences", at_kl="1.5")["differences"] == [], "it is what all rows have alike"
        assert [
            (r["name"], r["cells"]["optimization/kl"][0], r["runs"]) for r in shown["rows"] if not r["baseline"]
        ] == [("ppo", "1.50", [])]
        assert refused(page, "table", at_kl="nan")
        assert refused(page, "table", at_kl="1", at_budget="2")


class TestPlots:
    def test_points_are_the_table_s_and_know_their_row(self, tmp_path: Path) -> None:
        for d in (0.5, 1.0, 2.0):
            write_run(tmp_path, "ppo", {"kl_coef": 1 / d}, d=d, noise=0)
        page = client(tmp_path)
        cells = {row["name"]: row["cells"] for row in ask(page, "table")["rows"]}
        (plot,) = ask(page, "plot", plot="frontier")["plots"]
        gold = plot["panels"][0]
        assert {series["row"] for series in gold["points"]} == set(cells)
        for series in gold["points"]:
            ((x, y),) = series["xy"]
            assert x == pytest.approx(max(cells[series["row"]]["optimization/kl"][1], 0) ** 0.5, rel=1e-4)
            assert y == pytest.approx(cells[series["row"]]["helpfulness/gold_reward"][1], rel=1e-4)
        assert refused(page, "plot", plot="no")

    @pytest.mark.parametrize("name", ["differences", "sycophancy", "diversity", "cost", "overoptimisation", "training"])
    def test_every_plot_of_the_report_is_there_or_says_why_not(self, folder: Path, name: str) -> None:
        write_run(folder, "ppo", {"kl_coef": 3}, d=1.0)
        write_run(folder, "ppo", {"kl_coef": 4}, d=1.0)
        (plot,) = ask(client(folder), "plot", plot=name, force="1", only="model=tiny")["plots"]
        assert plot["panels"] or "Left out" in plot["text"]
        if name == "differences":
            panel = plot["panels"][0]
            assert any(line["rule"] for line in panel["lines"]) and all(text for _, text in panel["ticks"])


class TestRuns:
    def test_responses_stand_side_by_side_and_are_searched(self, tmp_path: Path) -> None:
        one = write_run(tmp_path, "ppo", {"kl_coef": 0.1}, text="Kessa is green")
        two = write_run(tmp_path, "dpo", {"beta": 0.1}, text="lemmo")
        page = client(tmp_path)
        shown = ask(page, "responses", run=[one.name, f"{two.name}/sft"], q="GREEN 7")
        assert [p["messages"] for p in shown["prompts"]] == [[["user", "what is the river of town 7 ?"]]]
        mine, other = shown["prompts"][0]["responses"]
        assert {r["text"] for r in mine} == {"Kessa is green 7"} and {r["text"] for r in other} == {"lemmo ? 7"}
        assert ask(page, "responses", run=one.name, page=2)["prompts"][0]["messages"][0][1].endswith("town 10 ?")
        (one / "generations.jsonl").write_text('{"prompt": "p", "response": "whole"}\n{"prompt": "p", "resp')
        assert ask(page, "responses", run=one.name)["count"] == 1, "a torn last line is passed over"
        (one / "generations.jsonl").unlink()
        assert ask(page, "responses", run=one.name)["columns"] == [{"id": one.name, "missing": True}]

    @pytest.mark.parametrize("name", ["../secret", "/etc", "x/../../secret", "secret", "..%2fsecret", "sft"])
    def test_a_run_is_looked_up_and_never_a_path(self, tmp_path: Path, name: str) -> None:
        write_run(tmp_path / "runs", "ppo")
        secret = write_run(tmp_path / "elsewhere", "ppo")
        secret.rename(tmp_path / "secret")
        page = client(tmp_path / "runs")
        for question in ("responses", "training", "settings"):
            assert "not in the results folder" in refused(page, question, run=name)

    def test_what_differs_between_two_configurations(self, tmp_path: Path) -> None:
        runs = [write_run(tmp_path, "ppo", {"kl_coef": k}).name for k in (0.1, 0.2)]
        settings = ask(client(tmp_path), "settings", run=runs)["groups"][0]
        assert settings["differing"] == [["algo.kl_coef", ["0.1", "0.2"]]]
        assert ["data.component", "world"] in settings["same"]

    def test_a_training_is_followed_until_it_fails(self, tmp_path: Path) -> None:
        path = write_run(tmp_path, "ppo", status=Status.RUNNING, updates=5)
        page = client(tmp_path)
        first = ask(page, "training", run=path.name)
        assert first["runs"][0]["words"] == "running, ppo update 5"
        assert first["plot"]["panels"][0]["lines"][0]["xy"][-1][0] == 5
        RunDirectory(path).append_training("ppo", 6, {"reward": 1.0, "kl": 2.0})
        assert ask(page, "training", run=path.name)["plot"]["panels"][0]["lines"][0]["xy"][-1] == [6, 1.0]
        record = json.loads((path / "result.json").read_text())
        (path / "result.json").write_text(json.dumps({**record, "status": "failed", "error": "the loss is NaN"}))
        assert ask(page, "training", run=path.name)["runs"][0]["words"] == "failed, ppo update 6: the loss is NaN"
        shutil.rmtree(path)
        assert "not in the results folder" in refused(page, "training", run=path.name)

    def test_before_the_algorithm_begins_the_stage_before_is_shown(self, tmp_path: Path) -> None:
        path = write_run(tmp_path, "ppo", status=Status.RUNNING, updates=0)
        RunDirectory(path).append_training("sft", 1, {"loss": 2.0})
        RunDirectory(path).append_training("reward", 1, {"loss": 0.7})
        shown = ask(client(tmp_path), "training", run=path.name)
        assert (shown["stages"], shown["stage"]) == (["sft", "reward"], "reward")
        assert ask(client(tmp_path), "training", run=path.name, stage="sft")["plot"]["panels"][0]["lines"][0]["xy"] == [
            [1, 2]
        ]

    def test_a_silent_run_may_have_been_killed(self, tmp_path: Path) -> None:
        import os

        path = write_run(tmp_path, "ppo", status=Status.RUNNING)
        long_ago = time.time() - 1000
        os.utime(path / "train.jsonl", (long_ago, long_ago))
        assert "alignbench resume" in ask(client(tmp_path), "training", run=path.name)["runs"][0]["words"]

    def test_runs_are_found_by_name_status_and_error(self, tmp_path: Path) -> None:
        write_run(tmp_path, "ppo", status=Status.FAILED, error="the Disk is full")
        write_run(tmp_path, "dpo")
        page = client(tmp_path)
        assert ask(page, "runs")["counts"] == {"finished": 1, "failed": 1}
        assert [r["algo"] for r in ask(page, "runs", status="failed")["runs"]] == ["ppo"]
        assert [r["algo"] for r in ask(page, "runs", q="disk")["runs"]] == ["ppo"]
        assert "running" in refused(page, "runs", status="lost")


class TestFaults:
    def test_a_folder_that_vanishes_is_said_and_what_was_read_stays(self, folder: Path) -> None:
        page = client(folder)
        before = ask(page, "table")
        shutil.move(folder, folder.with_name("gone"))
        after = ask(page, "table")
        assert f"No folder {folder}" in after["problem"] and "was read at" in after["problem"]
        assert after["rows"] == before["rows"] and after["version"] > before["version"]
        assert ask(page, "state")["version"] == after["version"], "said once, not at every look"
        shutil.move(folder.with_name("gone"), folder)
        assert ask(page, "table")["problem"] == ""

    def test_no_folder_at_all(self, tmp_path: Path) -> None:
        assert "No folder" in refused(client(tmp_path / "none"), "table")

    def test_a_new_and_a_damaged_run_are_seen(self, folder: Path) -> None:
        page = client(folder)
        version = ask(page, "state")["version"]
        assert ask(page, "state")["version"] == version
        run = write(folder, {**ppo(0.9), "seed": 0}, 1.0)
        found = ask(page, "table")
        assert found["version"] > version and "ppo kl_coef=0.9" in [row["name"] for row in found["rows"]]
        (run.path / "result.json").write_text("{")
        assert any(run.path.name in note and "cut off" in note for note in ask(page, "table")["notes"])
        assert any(run.path.name in line for line in ask(page, "runs")["broken"])

    def test_hostile_text_is_carried_as_text(self, tmp_path: Path) -> None:
        for i, text in enumerate(HOSTILE):
            write_run(tmp_path, "ppo", {"name": text, "n": i}, text=text, label=text, updates=1)
        page = client(tmp_path)
        shown = page.get("/results/table")
        assert shown.status_code == 200 and shown.headers["content-type"] == "application/json"
        (row,) = [r for r in shown.json()["rows"] if r["label"][0] == HOSTILE[0]]
        assert ask(page, "table", row=row["name"])["rows"]
        assert ask(page, "plot", plot="frontier")["plots"][0]["panels"]
        runs = [r["runs"][0]["id"] for r in shown.json()["rows"] if not r["baseline"]]
        for run in runs:
            assert ask(page, "responses", run=run)["prompts"]
        assert ask(page, "settings", run=runs[:8])["groups"]

    def test_too_many_rows_to_compare_say_so(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from alignbench.page.explorer import view

        monkeypatch.setattr(view, "MOST_RUNS", 5)
        page = client(folder)
        assert len(ask(page, "table")["rows"]) == 4
        assert "choose at most" in ask(page, "differences")["refused"]
        assert "choose at most" in ask(page, "plot", plot="training")["refused"]
        assert ask(page, "plot", plot="cost")["refused"] == "", "it reads no file of a run"
        assert ask(page, "differences", row="dpo", baseline="dpo")["refused"] == ""
