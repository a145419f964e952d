"""Four real runs through each launcher, two of which cannot be carried out; and the threads that each run gets."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLURM = Path(__file__).parent / "slurm"  # a pretended SLURM: sbatch runs the script that it is given
NEEDS = {
    "hydra/launcher=local_processes": "hydra-joblib-launcher",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=slurm": "hydra-submitit-launcher",
    "hydra/launcher=ray_cluster": "hydra-ray-launcher",
    "hydra/sweeper=tune_ppo": "hydra-optuna-sweeper",
    "hydra/sweeper=tune_dpo": "hydra-optuna-sweeper",
}
EXTRAS = {"joblib": "joblib", "submitit": "slurm", "ray": "ray", "optuna": "optuna"}
TINY = (
    *("pretrain.updates=2", "sft.updates=2", "sft.batch_size=16", "sft.micro_batch_size=16"),
    *("rankings.prompts=8", "rankings.responses=3"),
    *("algo=dpo", "algo.updates=1", "algo.batch_size=16", "algo.micro_batch_size=16"),
    *("data.train_prompts=100", "data.demonstrations=100", "data.evaluation_questions=12", "eval=quick"),
    *("eval.questions=4", "device=cpu"),
)


def installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


def through(*choices: str) -> list[pytest.ParameterSet]:
    """A parameter for each choice, skipped where it is not installed."""

    def parameter(choice: str) -> pytest.ParameterSet:
        extra = EXTRAS[NEEDS[choice].split("-")[1]]
        skip = pytest.mark.skipif(not installed(NEEDS[choice]), reason=f"needs pip install 'alignbench[{extra}]'")
        return pytest.param(choice, id=choice.partition("=")[2], marks=[skip, pytest.mark.slow])

    return [parameter(choice) for choice in choices]


def command(module: str, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A sweep in a process and a folder of its own, with relative paths; without a word on threads."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", module, "-m", *arguments, "results_dir=runs", "hydra.sweep.dir=sweep"],
        cwd=folder, env=kept | {"PYTHONPATH": paths, "COLUMNS": "300"} | environment,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


LAUNCHERS = ("hydra/launcher=local_processes", "hydra/launcher=submitit_local", "hydra/launcher=ray_cluster")


@pytest.mark.parametrize("launcher", through(*LAUNCHERS, "hydra/launcher=slurm"))
def test_runs_that_fail_stop_no_other_and_stand_in_the_one_closing_table(launcher: str, tmp_path: Path) -> None:
    threads = {"OMP_NUM_THREADS": "1"} if launcher.endswith("submitit_local") else {}  # it starts all jobs at once
    if launcher.endswith("slurm"):
        threads |= {"PATH": f"{SLURM}{os.pathsep}{os.environ['PATH']}", "PRETENDED_SLURM": str(tmp_path)}
        launcher = f"{launcher} hydra.launcher.cpus_per_task=2"
    done = command("alignbench", tmp_path, *TINY, *launcher.split(), "annotator=recorded,mild", "seed=0,1", **threads)
    assert done.returncode == 1, done.stderr
    assert done.stderr.rstrip().endswith("alignbench: error: 2 of 4 runs of the sweep failed."), done.stderr
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/*/result.json"))]
    ends = sorted((r["identity"]["annotator"], r["identity"]["seed"], r["status"]) for r in records)
    assert ends == [
        ("mild", 0, "finished"),
        ("mild", 1, "finished"),
        ("recorded", 0, "failed"),
        ("recorded", 1, "failed"),
    ]
    assert all("no rankings" in r["error"] for r in records if r["status"] == "failed")
    closing = done.stdout.rpartition("The run lies in")[2]
    assert closing.count("\nhelpfulness") == 1, "one table, after all that the runs themselves say"
    assert re.search(r"^seeds +2 +2$", closing, re.MULTILINE), closing
    assert closing.count("Not in the table:") == closing.count(": failed, annotator=recorded has no rankings") == 2


def threads(folder: Path) -> list[float]:
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/result.json"))]
    return [record["metrics"]["pretend/threads"]["value"] for record in records]


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize("launcher", through("hydra/launcher=local_processes"))
def test_processes_share_the_cores(launcher: str, tmp_path: Path) -> None:
    for jobs in (1, 2):
        arguments = (launcher, f"hydra.launcher.n_jobs={jobs}", "seed=0,1")
        done = command("tests.sweeps.pretend", tmp_path, *arguments, PRETEND_THREADS="1")
        assert done.returncode == 0, done.stderr
        assert threads(tmp_path) == [max(CORES // jobs, 1)] * 2
        shutil.rmtree(tmp_path / "runs")


@pytest.mark.skipif(CORES < 2, reason="torch takes no more threads than there are cores")
@pytest.mark.parametrize("launcher", through("hydra/launcher=local_processes", "hydra/launcher=ray_cluster"))
def test_who_says_how_many_threads_has_the_last_word(launcher: str, tmp_path: Path) -> None:
    arguments = (launcher, "seed=0,1")  # by themselves, one thread for each process and one process for each core
    done = command("tests.sweeps.pretend", tmp_path, *arguments, PRETEND_THREADS="1", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert threads(tmp_path) == [2, 2]


@pytest.mark.skipif(CORES < 2, reason="torch takes no more threads than there are cores")
@pytest.mark.parametrize("launcher", through("hydra/launcher=ray_cluster", "hydra/launcher=slurm"))
def test_a_scheduler_gives_as_many_threads_as_cores(launcher: str, tmp_path: Path) -> None:
    cores = {"ray_cluster": "hydra.launcher.ray.remote.num_cpus", "slurm": "hydra.launcher.cpus_per_task"}
    arguments = (launcher, f"{cores[launcher.partition('=')[2]]}=2", "seed=0,1")
    slurm = {"PATH": f"{SLURM}{os.pathsep}{os.environ['PATH']}", "PRETENDED_SLURM": str(tmp_path)}
    done = command("tests.sweeps.pretend", tmp_path, *arguments, PRETEND_THREADS="1", **slurm)
    assert done.returncode == 0, done.stderr
    assert threads(tmp_path) == [2, 2]
