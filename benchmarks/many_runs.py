"""`alignbench compare` on a folder of many runs: wall and CPU seconds and peak memory, as the operating system counts them.

    python benchmarks/many_runs.py                    10,000 run directories, each with its SFT model's row
    python benchmarks/many_runs.py --runs 100000

The runs are synthetic: twenty configurations (algorithm by coefficient) with as many seeds as it takes. Of every hundred, two were
interrupted, two failed, two still run and one was cut off by a full disk. `--limit-seconds` and `--limit-gib` make the exit
code 1 where the comparison needed more when nothing had changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from alignbench import Direction, Metric
from alignbench.results.disk.directory import BASELINE, CONFIG, RESULT
from alignbench.results.disk.environment import config_hash, hardware, package_versions
from alignbench.results.disk.index import INDEX, SETTLED_NS
from alignbench.results.disk.record import Cost, Identity, RunRecord, Status

COMMAND = "python -m alignbench compare --format csv --results-dir"
COEFFICIENTS = dict.fromkeys(("ppo", "rloo", "grpo", "dpo"), (0.02, 0.05, 0.1, 0.2, 0.5))
METRICS = (
    "helpfulness/gold_reward", "helpfulness/accuracy", "helpfulness/win_rate", "sycophancy/agreement",
    "sycophancy/accuracy_wrong", "sycophancy/accuracy_drop", "diversity/entropy", "diversity/distinct_2",
    "diversity/ead", "diversity/self_bleu", "diversity/unique", "optimization/proxy_reward",
    "optimization/gold_reward", "optimization/kl", "optimization/length", "optimization/finished",
)  # fmt: skip
STAGES = ("data", "model", "pretrain", "sft", "rankings", "reward", "evaluate sft", "ppo", "evaluate ppo")
COUNTS = ("facts", "train questions", "evaluation questions", "evaluation prompts", "train prompts", "demonstrations")
REPORTS = tuple(f"reward/figure_{i}" for i in range(10))
SECTIONS = {
    "sft": 10, "pretrain": 10, "model": 11, "data": 9, "reward": 11, "annotator": 6, "rankings": 4, "eval": 7,
}  # fmt: skip
"""Sections of the configuration beside `algo`, and how many settings a run of the embedded world has in each."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="run directories (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the runs here, or measure those that are here")
    parser.add_argument("--limit-seconds", type=float, help="wall seconds, when nothing changed")
    parser.add_argument("--limit-gib", type=float, help="peak resident memory, GiB, when nothing changed")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        if not folder.is_dir() or not any(folder.iterdir()):
            make_runs(folder, arguments.runs)
        (folder / INDEX).unlink(missing_ok=True)
        results = sorted(folder.glob(f"*/{RESULT}"))
        time.sleep(SETTLED_NS / 1e9)
        print(f"{COMMAND} DIR, {len(results)} run directories")
        print(f"{'':<18} {'wall s':>8} {'user s':>8} {'system s':>9} {'peak GiB':>9}")
        for name in ("no index", "one run changed", "nothing changed"):
            if name == "one run changed":
                results[0].touch()
                time.sleep(SETTLED_NS / 1e9)
            wall, usage = measured([sys.executable, *COMMAND.split()[1:], str(folder)])
            gib = usage.ru_maxrss / 2**20  # Linux counts in KiB
            print(f"{name:<18} {wall:8.2f} {usage.ru_utime:8.2f} {usage.ru_stime:9.2f} {gib:9.2f}")
        print(f"index of {(folder / INDEX).stat().st_size / 2**20:.0f} MiB")
    over = (arguments.limit_seconds and wall > arguments.limit_seconds) or (
        arguments.limit_gib and gib > arguments.limit_gib
    )
    return 1 if over else 0


def measured(command: list[str]) -> tuple[float, Any]:
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} ended with {code}")
    return time.perf_counter() - start, usage


def make_runs(folder: Path, number: int, coefficients: Mapping[str, Sequence[float]] = COEFFICIENTS) -> None:
    """Without the fsyncs of RunDirectory, which would make this the slowest part by far."""
    folder.mkdir(parents=True, exist_ok=True)
    machine, packages = hardware(), package_versions()
    configurations = [(algo, value) for algo, values in coefficients.items() for value in values]
    sft_metrics: dict[int, dict[str, Metric]] = {}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for i in range(number):
        (algo, value), seed = configurations[i % len(configurations)], i // len(configurations)
        settings = _settings(algo, value, seed)
        text = yaml.dump(settings, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
        identity = Identity(
            algo=algo, plugin="alignbench", plugin_version="0.1.0", model="tiny", data="world", annotator="mild",
            reward=None if algo == "dpo" else "learned", seed=seed, config_hash=config_hash(settings),
            git_commit="0" * 40, packages=packages, hardware=machine,
        )  # fmt: skip
        rng = random.Random(i)
        run_id = (
            f"{start + timedelta(seconds=37 * i):%Y%m%d-%H%M%S}-{algo}-tiny-world-s{seed}-{identity.config_hash[:8]}"
        )
        status = {0: Status.INTERRUPTED, 1: Status.FAILED, 2: Status.RUNNING}.get(i % 50, Status.FINISHED)
        record = RunRecord(
            run_id, status, identity, _cost(rng), _metrics(rng) if status is Status.FINISHED else {},
            {name: rng.randrange(20_000) for name in COUNTS}, {name: rng.random() for name in REPORTS},
            error="the loss is NaN" if status is Status.FAILED else None,
        )  # fmt: skip
        sft = dataclasses.replace(
            record,
            run_id=f"{run_id}/{BASELINE}",
            status=Status.FINISHED,
            identity=dataclasses.replace(identity, algo="sft", config_hash=config_hash(settings, leave_out=("algo",))),
            metrics=sft_metrics.setdefault(seed, _metrics(random.Random(-seed - 1))),
            baseline=True,
            error=None,
        )
        for path, content in ((folder / run_id, record), (folder / run_id / BASELINE, sft)):
            path.mkdir()
            (path / CONFIG).write_text(text)
            (path / RESULT).write_text(content.to_json())
        if i % 100 == 99:
            (folder / run_id / RESULT).write_text(record.to_json()[:1000])


def _settings(algo: str, value: float, seed: int) -> dict[str, Any]:
    numbers = {f"setting_number_{k}": 0.001 * k for k in range(25)}
    sections = {name: {f"setting_{k}": 0.1 * k for k in range(size)} for name, size in SECTIONS.items()}
    algorithm = {"component": algo, "kl_coef": value, **numbers}
    return {"seed": seed, "device": "auto", "results_dir": "results/runs", "algo": algorithm, **sections}


def _cost(rng: random.Random) -> Cost:
    return Cost({stage: rng.uniform(1, 100) for stage in STAGES}, rng.uniform(100, 1000), rng.randrange(2**30))


def _metrics(rng: random.Random) -> dict[str, Metric]:
    return {name: Metric(rng.random(), 0.1 * rng.random(), 1800, Direction.HIGHER) for name in METRICS}


if __name__ == "__main__":
    sys.exit(main())
