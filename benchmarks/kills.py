"""Kills runs at random moments, lets them go on, and counts those that end as if nothing had happened.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --kills 50

Each time a small run of the world in a process of its own is killed (SIGKILL) at a random moment of a stage that is drawn
evenly, and then goes on: by the same command or by `alignbench resume`, in turn. Equal means the same metrics, example
scores, generations and training curves, bit for bit, as the run that was never killed, and nothing left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RUN = (
    "pretrain.updates=12", "sft.updates=12", "rankings.prompts=60", "reward.passes=3", "algo.updates=6",
    "algo.batch_size=32", "data.train_prompts=500", "data.demonstrations=800", "eval=quick", "eval.questions=10",
)  # fmt: skip
STAGES = ("model", "pretrain", "sft", "rankings", "reward", "evaluate sft", "ppo", "evaluate ppo")


def start(folder: Path, *arguments: str) -> int:
    """Runs a command in a forked process: what is imported here is not imported again. Its number; stderr in `log`."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from alignbench.commands.cli import run_command

    os._exit(run_command(arguments))


def command(folder: Path) -> tuple[str, ...]:
    return (*RUN, f"results_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}")


def stages(log: str) -> list[tuple[str, float]]:
    """The stages whose line has been printed, with their seconds."""
    found = []
    for line in log.splitlines():
        for stage in ("data", *STAGES):
            if line.startswith(f"{stage:<12} ") and " s" in line:
                found.append((stage, float(line[13:].split()[0])))
    return found


def outcome(folder: Path) -> Mapping[str, object]:
    """All that must be equal."""
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    record = json.loads((run / "result.json").read_text())
    files = ["examples.parquet", "generations.jsonl", "train.jsonl", "rankings.jsonl", "config.yaml"]
    files += ["sft/examples.parquet", "sft/generations.jsonl"]
    files += [str(p.relative_to(run)) for p in sorted(run.rglob("*.safetensors"))]
    return {
        "status": record["status"],
        "metrics": record["metrics"],
        "reports": record["reports"],
        "names": sorted(str(p.relative_to(run)) for p in run.rglob("*")),
        **{name: (run / name).read_bytes() for name in files if name != "config.yaml"},
    }


def killed(folder: Path, stage: str, moment: float) -> str:
    """Starts a run and kills it `moment` seconds into a stage; how far it had come."""
    child = start(folder, *command(folder))
    before = ("data", *STAGES)[("data", *STAGES).index(stage) - 1]
    log = folder / "log"
    while not (log.exists() and before in dict(stages(log.read_text()))):
        if os.waitpid(child, os.WNOHANG)[0]:
            return "ended before"
        time.sleep(0.005)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return "killed" if os.WIFSIGNALED(status) else "ended before"


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="alignbench-kills-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)

    import peft  # noqa: F401  (once, before anything is forked)
    import polars  # noqa: F401

    import alignbench.pipeline.run  # noqa: F401

    with folder() as whole:
        os.waitpid(start(whole, *command(whole)), 0)
        expected, seconds = outcome(whole), dict(stages((whole / "log").read_text()))
    if expected["status"] != "finished":
        print("The run that nobody kills did not finish.", file=sys.stderr)
        return 1
    print("unkilled:", ", ".join(f"{stage} {seconds[stage]:.1f} s" for stage in STAGES), flush=True)

    tries, equal = Counter[str](), Counter[str]()
    while sum(tries.values()) < options.kills:
        stage = STAGES[sum(tries.values()) % len(STAGES)]
        moment = rng.uniform(0, seconds[stage])
        with folder() as here:
            if killed(here, stage, moment) != "killed":
                continue  # it was faster this time
            tries[stage] += 1
            (run,) = (here / "runs").iterdir()
            again = command(here) if sum(tries.values()) % 2 else ("resume", str(run))
            os.waitpid(start(here, *again), 0)
            found = outcome(here)
            differ = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
            equal[stage] += not differ
            if differ:
                print(f"{stage} + {moment:.2f} s, {again[0]}: {', '.join(sorted(differ))} differ", flush=True)
                print((here / "log").read_text()[-2000:], file=sys.stderr)
    for stage in STAGES:
        print(f"{stage:<13} {equal[stage]:>3} of {tries[stage]:>3} equal")
    print(f"{'all':<13} {sum(equal.values()):>3} of {sum(tries.values()):>3} equal")
    return 0 if equal == tries else 1


if __name__ == "__main__":
    sys.exit(main())
