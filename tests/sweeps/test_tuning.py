"""Tuning: what is tuned for, what is found and where it goes."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignbench import UserError
from alignbench.app import compose
from alignbench.app.compose import load_config
from alignbench.app.tuning import check
from alignbench.errors import AlignbenchError
from alignbench.plugins import Kind, registry
from tests.sweeps.pretend import METRIC, goodness, pretend
from tests.sweeps.test_launchers import command, through


def test_only_a_metric_that_the_run_measures_and_that_has_a_better_end() -> None:
    config = load_config(["eval=quick"])
    check(config, METRIC, None)
    check(config, METRIC, "maximize")
    check(config, "sycophancy/agreement", "minimize")
    with pytest.raises(UserError, match=r"Unknown metric 'helpfulness/gold'.*Did you mean 'helpfulness/gold_reward'"):
        check(config, "helpfulness/gold", None)
    with pytest.raises(UserError, match="optimization/kl is better neither higher nor lower"):
        check(config, "optimization/kl", None)
    with pytest.raises(UserError, match=r"wants hydra\.sweeper\.direction=minimize, not maximize"):
        check(config, "sycophancy/agreement", "maximize")


def grid(folder: Path, *arguments: str) -> None:
    places = (f"results_dir={folder / 'runs'}", f"hydra.sweep.dir={folder / 'sweep'}", f"tune.metric={METRIC}")
    compose.main(pretend, ["-m", *places, *arguments])


def test_a_grid_leaves_its_trials_and_the_best_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AlignbenchError, match="3 of 6 runs"):
        grid(tmp_path, "algo.learning_rate=1e-1,2e-3,1e-5", "algo.epochs=3", "seed=13,7")
    with (tmp_path / "sweep" / "trials" / "tiny-ppo.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["failed", "finished"] * 3
    values = [float(row["value"]) for row in rows if row["value"]]
    assert values == pytest.approx([goodness(rate) for rate in (1e-1, 2e-3, 1e-5)])
    path = tmp_path / "sweep" / "found" / "tiny-ppo.yaml"
    assert path.read_text().startswith(f"# {METRIC}=-0.09062, the best of 3 finished trials (seed=7, no budget).\n")
    found = yaml.safe_load(path.read_text())
    assert (found["learning_rate"], found["epochs"]) == (2e-3, 3)
    assert f"The best settings are in {path}" in capsys.readouterr().out


@pytest.mark.parametrize(("limit", "rate"), [(0, 2e-3), (1.5, 1e-4), (0.05, 1e-5)])
def test_of_trials_that_went_too_far_none_is_chosen(limit: float, rate: float, tmp_path: Path) -> None:
    """A trial's KL is a thousand learning rates here: 2e-3 is the best, and 2 nats away."""
    grid(tmp_path, "algo.learning_rate=2e-3,1e-4,1e-5", f"tune.kl_limit={limit}")
    path = tmp_path / "sweep" / "found" / "tiny-ppo.yaml"
    assert yaml.safe_load(path.read_text())["learning_rate"] == rate
    assert (" within 1.5 nats of KL " in path.read_text()) == (limit == 1.5)


def test_where_all_went_too_far_there_are_trials_and_no_settings(tmp_path: Path) -> None:
    grid(tmp_path, "algo.learning_rate=2e-3,1e-4", "tune.kl_limit=0.01")
    assert (tmp_path / "sweep" / "trials" / "tiny-ppo.csv").is_file() and not (tmp_path / "sweep" / "found").exists()


def test_what_was_found_is_taken_by_a_comparison_and_by_its_own_algorithm_alone(tmp_path: Path) -> None:
    for algo in ("ppo", "dpo"):
        grid(tmp_path, f"algo={algo}", "algo.learning_rate=1e-3,3e-3", "seed=7")
    found = tmp_path / "sweep" / "found"
    assert {path.name for path in found.iterdir()} == {"tiny-ppo.yaml", "tiny-dpo.yaml"}, "one folder for all"
    (found / "tiny-dpo.yaml").write_text("learning_rate: 0.125\n")
    for algo, rate in (("dpo", 0.125), ("ppo", 1e-3)):
        line = [sys.executable, "-m", "alignbench", "--config-dir", str(found.parent), f"algo={algo}", "--cfg", "job"]
        shown = subprocess.run(line, capture_output=True, text=True, check=True)
        assert yaml.safe_load(shown.stdout)["algo"]["learning_rate"] == rate


SPACES = {path.stem.removeprefix("tune_"): path for path in Path(compose.conf_dir()).glob("hydra/sweeper/tune_*.yaml")}


def test_every_algorithm_of_this_distribution_has_a_space_to_search() -> None:
    """But another library's trainers, which are held against ours at the same settings."""
    own = {c.name for c in registry().of(Kind.ALGORITHM) if c.distribution == "alignbench"} - {"sft"}
    assert set(SPACES) == {name for name in own if not name.startswith("trl_")}


@pytest.mark.parametrize("algo", sorted(SPACES))
def test_both_ends_of_a_space_are_settings_that_the_algorithm_takes(algo: str) -> None:
    params = yaml.safe_load(SPACES[algo].read_text())["params"]
    assert params.pop("algo") == algo
    ends = {option: re.findall(r"[\d.]+(?:e-?\d+)?", space) for option, space in params.items()}
    assert all(len(values) > 1 for values in ends.values())
    for end in (0, -1):
        chosen = [f"{option}={values[end]}" for option, values in ends.items()]
        config = load_config([f"algo={algo}", *chosen]).algo.config
        for option, values in ends.items():
            assert getattr(config, option.removeprefix("algo.")) == float(values[end])


def test_tuning_for_a_metric_is_no_other_row_of_the_table() -> None:
    assert load_config([f"tune.metric={METRIC}"]).hash == load_config([]).hash


@pytest.mark.parametrize("sweeper", through("hydra/sweeper=tune_ppo", "hydra/sweeper=tune_dpo"))
def test_a_study_finds_the_best_of_its_trials_under_the_same_budget(sweeper: str, tmp_path: Path) -> None:
    done = command("tests.sweeps.pretend", tmp_path, sweeper, "hydra.sweeper.n_trials=5")
    assert done.returncode == 0, done.stderr
    name = f"tiny-{sweeper[-3:]}"
    with (tmp_path / "sweep" / "trials" / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert len({row["algo.learning_rate"] for row in rows}) == 5
    assert {(row["seed"], row["data.world_seed"], row["tune.metric"]) for row in rows} == {("1000", "1000", METRIC)}
    (budget,) = {int(row["budget.samples"]) for row in rows}
    best = max(rows, key=lambda row: float(row["value"]))
    path = tmp_path / "sweep" / "found" / f"{name}.yaml"
    assert yaml.safe_load(path.read_text())["learning_rate"] == float(best["algo.learning_rate"])
    assert f"budget.samples={budget}" in path.read_text().splitlines()[0]
    assert budget > 0
    results = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert results["best_value"] == float(best["value"])


@pytest.mark.parametrize("sweeper", through("hydra/sweeper=tune_ppo"))
def test_trials_that_fail_do_not_end_the_study(sweeper: str, tmp_path: Path) -> None:
    done = command("tests.sweeps.pretend", tmp_path, sweeper, "hydra.sweeper.n_trials=2", "seed=13")
    assert "2 of 2 runs of the sweep failed." in done.stderr
    assert not (tmp_path / "sweep" / "found").exists()
