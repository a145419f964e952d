"""What sweeps save by sharing stages.

    OMP_NUM_THREADS=1 python benchmarks/sharing.py account results/runs     # from the records of a sweep that was made
    OMP_NUM_THREADS=1 python benchmarks/sharing.py parallel                 # two sweeps at once, on one cache

`account` reads what each stage cost and which stages were reused: a stage that a run took from another is paid once, where separate
runs would each have paid for it. `parallel` starts two small sweeps of the same six runs at the same time, and counts how often each
stage was made, whether all is whole, and whether both sweeps measured the same.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun, find_runs
from alignbench.store.artifacts import artifacts, fault_of

SMALL = (
    "pretrain.updates=8", "sft.updates=8", "rankings.prompts=40", "reward.passes=1", "algo.updates=2", "algo.batch_size=16",
    "data.train_prompts=300", "data.demonstrations=500", "eval=quick", "eval.questions=6", "resume=never",
)  # fmt: skip

STAGES = {"sft": "sft", "rankings": "rankings", "reward": "reward", "evaluation": "evaluate sft"}
"""Artifacts, and what their stage is called on the terminal."""


def finished(folder: Path) -> list[StoredRun]:
    runs, broken = find_runs([folder])
    assert not broken, broken
    return [run for run in runs if not run.record.baseline and run.record.status is Status.FINISHED]


def account(folders: list[Path]) -> int:
    """Prints what the runs cost and what they would have cost apart; 1 if more than 0.6 of that."""
    runs = [run for folder in folders for run in finished(folder)]
    apart, paid = Counter[str](), Counter[str]()
    made: set[tuple[str, str]] = set()
    for run in runs:
        record = run.record
        apart.update(record.cost.seconds)
        for stage, seconds in record.cost.seconds.items():
            maker = record.reused.get("sft" if stage == "pretrain" else stage, record.run_id)  # one artifact holds both
            if (stage, maker) not in made:
                made.add((stage, maker))
                paid[stage] += seconds
    for stage in apart:
        print(f"{stage:<28} {apart[stage]:8.1f} s apart {paid[stage]:8.1f} s in the sweep")
    ratio = sum(paid.values()) / sum(apart.values())
    total = f"{sum(apart.values()):8.1f} s apart {sum(paid.values()):8.1f} s in the sweep, {ratio:.2f} of it"
    print(f"{f'{len(runs)} runs':<28} {total}")
    return int(ratio > 0.6)


def parallel() -> int:
    """Two sweeps at once; 1 if a stage was made twice, is damaged, or gave one of them other numbers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "ALIGNBENCH_CACHE": str(folder / "cache")}
        command = [sys.executable, "-m", "alignbench", "-m", *SMALL, "algo=ppo,dpo,rloo", "seed=0,1"]
        sweeps = [
            subprocess.Popen(
                [*command, f"results_dir={folder / side}", f"hydra.sweep.dir={folder / side}-sweep"],
                env=environment, stdout=subprocess.DEVNULL, stderr=(folder / f"{side}.log").open("w"),
            )
            for side in ("one", "other")
        ]  # fmt: skip
        codes = [sweep.wait() for sweep in sweeps]
        logs = "".join((folder / f"{side}.log").read_text() for side in ("one", "other"))
        found = artifacts(folder / "cache" / "stages")
        made = Counter(artifact.stage for artifact in found)
        worked = Counter(line.split("  ")[0] for line in logs.splitlines() if re.search(r"\d s( |$)", line))
        print(f"exit codes {codes}; waited for the other {logs.count('waiting for another run')} times")
        for stage, label in STAGES.items():
            print(f"{stage:<12} {made[stage]} artifacts, worked out {worked[label]} times")
        whole = all(not fault_of(artifact.path) for artifact in found) and "set aside" not in logs
        keys = [{(r.record.identity.algo, r.record.identity.seed): r.record.metrics for r in finished(folder / side)}
                for side in ("one", "other")]  # fmt: skip
        once = all(made[stage] == worked[label] for stage, label in STAGES.items())
        print(f"all whole: {whole}; 6 runs each: {[len(k) for k in keys]}; same metrics: {keys[0] == keys[1]}")
        return int(not (codes == [0, 0] and once and whole and keys[0] == keys[1] and len(keys[0]) == 6))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("account").add_argument("runs", type=Path, nargs="+")
    commands.add_parser("parallel")
    options = parser.parse_args()
    return account(options.runs) if options.command == "account" else parallel()


if __name__ == "__main__":
    sys.exit(main())
