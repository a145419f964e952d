"""The scripts that make, pack and repeat the committed tables."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars
import pytest
import yaml

from alignbench import Direction, ExampleScore, Metric
from alignbench.app.compose import load_config
from alignbench.app.config import RunConfig
from alignbench.results.compared.table import GOLD, PROXY
from alignbench.results.compared.training_points import KL, Points
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun, find_runs, read_record
from tests.results.on_disk import compare, write
from tests.results.synthetic import write_run

RESULTS = Path(__file__).resolve().parents[2] / "results"


def script(name: str) -> ModuleType:
    path = RESULTS / f"{name}.py"
    if not path.is_file():
        pytest.skip("results/ is not part of this copy")
    spec = importlib.util.spec_from_file_location(f"results_{name}", path)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two rows of two seeds, each with its SFT model's, and one that is not finished."""
    folder = tmp_path / "runs"
    for seed in (0, 1):
        for algo, d in (("ppo", 1.0), ("dpo", 0.5)):
            path = write_run(folder, algo, {"rate": 0.1}, d=d, seed=seed)
            (path / "model").mkdir()
            (path / "model" / "model.safetensors").write_bytes(b"0" * 4096)
            for directory in (path, path / "sft"):
                score = {name: metric.value for name, metric in read_record(directory).metrics.items()}
                RunDirectory(directory).write_examples(
                    [
                        ExampleScore(name, f"p{i}", value + 0.1 * i)
                        for name, value in score.items()
                        for i in range(-4, 5)
                    ]
                )
    shutil.rmtree(write_run(folder, "ppo", {"rate": 0.2}, status=Status.INTERRUPTED) / "sft")
    return folder


def markdown(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert compare([str(folder), "--format", "markdown"]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if "Not in the table" not in line]


def test_what_was_packed_is_the_same_table(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep = script("keep")
    new, left = keep.keep("table", [runs], primary=False, records=tmp_path / "records")
    assert (new, len(left)) == (4, 1)
    packed = tmp_path / "records" / "table"
    shown = [line for line in markdown(runs, capsys) if line]
    assert [line for line in markdown(packed, capsys) if line] == shown
    assert any("▲" in line or "▼" in line or "[" in line for line in shown), "differences need the examples"
    assert len(list(packed.rglob("sft/result.json"))) == 2, "an SFT model's row once, of each seed"
    assert not list(packed.rglob("*.safetensors")) and not list(packed.rglob("generations.jsonl"))
    assert keep.keep("table", [runs], primary=False, records=tmp_path / "records")[0] == 0, "what is kept stays"


def test_an_sft_models_row_is_kept_once_in_however_many_steps(runs: Path, tmp_path: Path) -> None:
    records, keep = tmp_path / "records", script("keep")
    for source in (sorted(runs.iterdir())[0], runs):
        keep.keep("table", [source], primary=False, records=records)
    assert len(list((records / "table").rglob("sft/result.json"))) == 2


def test_a_step_without_its_data_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HH_RLHF", raising=False)
    make = script("make")
    assert make.carry_out("hacking", make.commands("hacking")) == 1
    assert capsys.readouterr().err == "hacking needs a folder with the files of HH-RLHF: set HH_RLHF to it.\n"
    monkeypatch.setenv("HH_RLHF", "/nowhere/at/all")
    assert make.carry_out("hacking", make.commands("hacking")) == 1
    assert capsys.readouterr().err == "hacking: HH_RLHF=/nowhere/at/all: there is no such folder.\n"
    monkeypatch.setenv("HH_RLHF", str(RESULTS))
    monkeypatch.delenv("EVAL_DATA", raising=False)
    assert make.carry_out("preferences", make.commands("preferences")) == 1
    assert capsys.readouterr().err.startswith("preferences needs a folder of evaluation data (docs/evaluation.md")


def test_nothing_compared_is_no_agreement(runs: Path) -> None:
    (run, *_), _ = find_runs([runs])
    lines, good = script("again").judged(run, [run], ["no/metric"])
    assert lines == [] and not good


def test_a_cell_that_was_made_twice_is_kept_once(runs: Path, tmp_path: Path) -> None:
    keep, records = script("keep"), tmp_path / "records"
    one = next(runs.glob("*dpo*s0*"))
    shutil.copytree(one, one.with_name(f"{one.name}-2"))
    assert keep.keep("table", [runs], primary=False, records=records)[0] == 4
    shutil.copytree(one, one.with_name(f"{one.name}-3"))
    assert keep.keep("table", [runs], primary=False, records=records)[0] == 0


def test_what_was_cut_off_while_it_was_packed_is_packed_again(runs: Path, tmp_path: Path) -> None:
    keep, records = script("keep"), tmp_path / "records"
    keep.keep("table", [runs], primary=False, records=records)
    victim = next(path for path in (records / "table").iterdir())
    (victim / "result.json").unlink()
    assert keep.keep("table", [runs], primary=False, records=records)[0] == 1
    assert read_record(victim).status is Status.FINISHED


def test_with_primary_the_scores_that_are_tested_are_kept_alone(runs: Path, tmp_path: Path) -> None:
    keep, other = script("keep"), next(runs.glob("*dpo*s0*"))
    scores = [ExampleScore(name, "p", 1.0) for name in (PROXY, GOLD, KL, "diversity/unique")]
    RunDirectory(other).write_examples(scores)
    keep.keep("table", [runs], primary=True, records=tmp_path / "records")
    packed = tmp_path / "records" / "table" / other.name / "examples.parquet"
    assert polars.read_parquet(packed)["metric"].to_list() == [PROXY, GOLD, KL]


def test_points_are_kept_and_paths_of_this_machine_are_not(tmp_path: Path) -> None:
    settings = {
        "seed": 0, "algo": {"name": "ppo"}, "data": {"path": "/home/me/data/hh-rlhf", "rows": 3},
        "results_dir": "/home/me/runs", "cache_dir": "~/cache", "eval": {"paths": ["/home/me/tasks"]},
    }  # fmt: skip
    directory = write(tmp_path / "runs", settings)
    (directory.path / "config.yaml").write_text(yaml.safe_dump(settings))
    Points(directory.path).add(5, {}, [ExampleScore(KL, "p0", 1.0)], (), 1.0)
    script("keep").keep("table", [tmp_path / "runs"], primary=False, records=tmp_path / "records")
    (found,) = (tmp_path / "records" / "table").iterdir()
    kept = yaml.safe_load((found / "config.yaml").read_text())
    assert kept["data"] == {"path": "hh-rlhf", "rows": 3} and kept["eval"] == {"paths": ["tasks"]}
    assert (kept["results_dir"], kept["cache_dir"]) == ("results/runs", "")
    assert "/home" not in "".join(file.read_text() for file in found.glob("*.[jy]*"))
    assert polars.read_parquet(found / "points.parquet")["update"].to_list() == [5]


def test_every_command_of_a_step_is_one_that_a_run_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first combination; settings that were tuned are not there yet."""
    pytest.importorskip("vaderSentiment", reason="the extra `sentiment` is not installed")
    monkeypatch.setenv("HH_RLHF", str(RESULTS))
    monkeypatch.setenv("EVAL_DATA", str(RESULTS))
    make = script("make")
    monkeypatch.setattr(make, "JUDGE", str(RESULTS))  # which is made by the step's first command
    for step in make.STEPS:
        # Of the tuner those with settings of their own: its spaces are tested with it.
        own = [
            command
            for command in make.commands(step)
            if command[: len(make.RUN)] == make.RUN and (step != "tune" or any("algo." in part for part in command))
        ]
        assert own
        for command in own:
            given = [part for part in command[len(make.RUN) :] if "=" in part and not part.startswith("hydra")]
            config = load_config([part if "[" in part else part.split(",")[0] for part in given])
            assert config.results_dir == f"results/runs/{step}"
            at_the_end = ("tune", "exact", "exact3", "exact3_long", "uncovered", "arithmetic", "aa", "sums", "sums_nf4")
            assert step in at_the_end or config.eval.every in (4, 5, 10, 24)
    assert len(make.commands("tune")) == len(make.IN_THE_WORLD) > 30


def test_runs_side_by_side_are_asked_for_but_not_of_the_tuner() -> None:
    make = script("make")
    assert all("hydra.launcher.n_jobs=2" in command for command in make.commands("world", 2))
    assert make.commands("tune", 2) == make.commands("tune")


def test_a_step_is_carried_out_to_its_end_and_what_it_took_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = script("make")
    monkeypatch.setattr(make, "HERE", tmp_path)
    monkeypatch.setattr(
        make, "_here", lambda command: ["python3", "-c", f"sum(range(10**7)); exit({command[-1] == 'bad'})"]
    )
    (tmp_path / "records").mkdir()
    todo: list[tuple[str, ...]] = [
        (*make.RUN, "data.path=/home/me", "eval.path=/home/you", "bad"),
        (*make.RUN, "good"),
        ("alignbench", "x"),
    ]
    assert make.carry_out("exact", todo) == 1
    noted = [json.loads(line) for line in (tmp_path / "records/exact/commands.jsonl").read_text().splitlines()]
    assert [line["exit_code"] for line in noted] == [1, 0], "one that failed is not the end; a table is no run"
    assert "/home" not in noted[0]["command"] and noted[0]["cpu_seconds"] > 0
    assert capsys.readouterr().out.count("$ ") == 3, "printed before they run"


def test_one_more_draw_is_held_against_the_seeds_of_its_row() -> None:
    """n = 3, mean 2, s 1: t(2) is 4.303, so 2 +- 4.303 sqrt(4 / 3)."""
    again = script("again")
    assert again.predicted([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.9685, 2 + 4.9685), abs=1e-3)
    assert again.predicted([1.0]) == (-float("inf"), float("inf"))


@pytest.mark.parametrize(
    ("seed", "value", "good", "said"),
    [
        (0, 1.0, True, "recorded 1, now 1; the same"),
        (0, 1.5, True, "recorded 1, now 1.5; within"),
        (7, 9.0, False, "recorded another seed, now 9; OUTSIDE"),
    ],
)
def test_a_cell_that_was_made_again_is_judged(seed: int, value: float, good: bool, said: str, tmp_path: Path) -> None:
    def made(number: int, found: float, folder: str) -> StoredRun:
        metrics: dict[str, Any] = {GOLD: Metric(found, 0.1, 9, Direction.HIGHER)}
        directory: RunDirectory = write(tmp_path / folder, {"seed": number, "algo": {"name": "ppo"}}, metrics=metrics)
        return find_runs([directory.path])[0][0]

    recorded = [made(0, 1.0, "a"), made(1, 2.0, "b"), made(2, 3.0, "c")]
    lines, ok = script("again").judged(made(seed, value, "now"), recorded, [GOLD, "sycophancy/agreement"])
    assert ok is good and len(lines) == 1 and said in lines[0]


def test_a_table_or_a_setting_that_is_not_there_is_one_line(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = script("again")
    monkeypatch.setattr(again, "RECORDS", tmp_path)
    shutil.copytree(runs, tmp_path / "table")
    for arguments, said in (
        (["none"], "none"),
        (["table", "--only", "algo=x"], "algo=x"),
        (["table", "rate=1"], "rate=1"),
        (["table", "algo.rate=["], "algo.rate=[: while parsing"),
        (["table", "[=1"], "[=1: "),
    ):
        assert again.main(arguments) == 2
        assert said in (told := capsys.readouterr().err) and told.count("\n") == 1


def test_the_sft_models_row_is_made_by_the_run_that_is_no_more_than_sft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (RESULTS / "records" / "exact").is_dir():
        pytest.skip("the records are not part of this copy")
    carried: list[RunConfig] = []

    def carry_out(config: RunConfig) -> Path:
        carried.append(config)
        (own,) = find_runs(
            [write(tmp_path, {}, metrics={"exact/objective_gap": Metric(9.0, 0.1, 4, Direction.LOWER)}).path]
        )[0]
        return own.path

    monkeypatch.setattr("alignbench.pipeline.run.run", carry_out)
    again = script("again")
    for only, algorithm, trained in (("algo=sft", "sft", True), ("algo=ppo", "ppo", False), ("seed=0", "aot", False)):
        assert again.main(["exact", "--only", only, "--only", "seed=0"]) == 1
        out = capsys.readouterr().out
        assert f"Making {algorithm} again, from 2026" in out and "seeds are 0, 1, 2, 3, 4" in out and "OUTSIDE" in out
        assert (carried[-1].algo.label, carried[-1].imitates) == (algorithm, trained)


def test_what_a_cell_lacks_here_is_found_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (RESULTS / "records" / "trl").is_dir():
        pytest.skip("the records are not part of this copy")
    asked = ["trl", "--only", "algo=trl_ppo", "algo.environment=nowhere", "--results-dir", str(tmp_path / "again")]
    assert script("again").main(asked) == 2
    assert "algo.environment=nowhere" in capsys.readouterr().err and not (tmp_path / "again").exists()


def test_a_folder_of_folders_of_runs_names_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare([str(runs.parent)]) == 2
    assert f"Runs lie in {runs}: name one of these folders." in capsys.readouterr().err
    assert compare([str(runs.parent.parent / "nowhere"), str(runs)]) == 2
    assert "Start one" not in capsys.readouterr().err


def test_presets_are_what_the_tuner_found() -> None:
    """To two digits, in every preset that says so."""
    conf, found = RESULTS.parent / "conf" / "tuned", RESULTS / "tuning" / "found"
    said = [path for path in sorted(conf.glob("tiny-*.yaml")) if "best of eight trials" in path.read_text()]
    assert len(said) >= 20
    for path in said:
        preset, best = (yaml.safe_load((folder / path.name).read_text()) for folder in (conf, found))
        for setting in set(preset) - {"updates", "batch_size", "micro_batch_size", "minibatches", "warmup_updates"}:
            assert float(preset[setting]) == pytest.approx(float(best[setting]), rel=0.05), (path.name, setting)
        assert len(preset.keys() & {"beta", "kl_coef", "tau"}) == 1, path.name


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "No folder"), ("", "has no finished trial")])
def test_a_folder_without_trials_is_one_line(
    folder: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script("tuned").main(["--keep", str(tmp_path / folder)])
    assert said in capsys.readouterr().err


def test_a_table_without_runs_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("tuned").main(["--against", str(tmp_path / "nowhere")])
    assert "No folder" in capsys.readouterr().err
    for several in ("annotators", "frontier", "hacking"):
        if (RESULTS / "records" / several).is_dir():
            with pytest.raises(SystemExit):
                script("tuned").main(["--against", str(RESULTS / "records" / several)])
            assert "it takes one SFT model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", "World", "."])
def test_what_names_no_table_is_refused(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("keep").main([name, str(runs)])
    assert "names no table" in capsys.readouterr().err


def test_that_nothing_was_packed_is_said(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = script("keep")
    monkeypatch.setattr(keep, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(keep.keep, "__kwdefaults__", {"records": tmp_path / "records"})
    for expected in (False, True):
        assert keep.main(["table", str(runs)]) == 0
        assert ("Nothing was packed" in capsys.readouterr().out) is expected


def test_runs_that_are_not_there_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("keep").main(["table", str(tmp_path / "nowhere")])
    assert "No folder" in capsys.readouterr().err


def test_no_runs_at_a_time_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("make").main(["world", "--jobs", "0"])
    assert "--jobs: 1 or more" in capsys.readouterr().err
