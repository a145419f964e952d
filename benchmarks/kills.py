"""Kills commands at random moments, gives them again, and counts those that end as if nothing had happened.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --kills 100

Each time a command in a process of its own is ended at a random moment, by SIGKILL, SIGTERM, SIGINT and SIGHUP in turn, and then given
again: a run (at a stage that is drawn evenly; it goes on by the same command or by `alignbench resume`, in turn), a sweep of two seeds, a
resume, an evaluation, an export, and pruning of a cache. Equal means the same metrics, example scores, generations, training curves and
weights, bit for bit, as where nothing was killed, and that nothing half-written is left behind.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN = (
    "pretrain.updates=12", "sft.updates=12", "rankings.prompts=60", "reward.passes=3", "algo.updates=6",
    "algo.batch_size=32", "data.train_prompts=500", "data.demonstrations=800", "eval=quick", "eval.questions=10",
)  # fmt: skip
TRIES = 10
"""For one kill: a command may end before the signal comes."""
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


def ends_well(folder: Path, *arguments: str) -> bool:
    """Whether a command that nobody kills ends with exit code 0."""
    return os.waitstatus_to_exitcode(os.waitpid(start(folder, *arguments), 0)[1]) == 0


def unkilled(folder: Path, name: str, *arguments: str) -> None:
    if not ends_well(folder, *arguments):
        raise SystemExit(f"{name}, which nobody killed, failed: {(folder / 'log').read_text()[-2000:]}")


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


def outcome(run: Path) -> Mapping[str, object]:
    """All of a run that must be equal."""
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


def only(folder: Path) -> Path:
    """The run in a folder of runs."""
    (run,) = [path for path in folder.iterdir() if path.is_dir()]
    return run


def run_is_killed(folder: Path, stage: str, moment: float, number: signal.Signals) -> bool:
    """Starts a run and ends it `moment` seconds into a stage; whether it was still at work."""
    child = start(folder, *command(folder))
    before = ("data", *STAGES)[("data", *STAGES).index(stage) - 1]
    log = folder / "log"
    while not (log.exists() and before in dict(stages(log.read_text()))):
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.005)
    return is_ended(child, moment, number)


def is_ended(child: int, moment: float, number: signal.Signals) -> bool:
    """Whether the process was still at work after `moment` seconds: then it got the signal."""
    time.sleep(moment)
    if os.waitpid(child, os.WNOHANG)[0]:
        return False
    os.kill(child, number)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) or os.WEXITSTATUS(status) != 0


@dataclass(frozen=True)
class Victim:
    """A command beside a plain run. `found(folder)` is all that must be equal once it was given again; `whole` says whether it is what
    the command should leave where nothing is killed: two failures are equal too."""

    name: str
    prepare: Callable[[Path, Path], object]
    arguments: Callable[[Path], tuple[str, ...]]
    found: Callable[[Path], Mapping[str, object]]
    whole: Callable[[Mapping[str, Any]], bool]


def copied(made: Path, folder: Path) -> None:
    shutil.copytree(made / "runs", folder / "runs")


def interrupted(made: Path, folder: Path) -> None:
    """A run that was killed in its algorithm's training; `alignbench resume` is the command here."""
    shutil.copytree(made / "interrupted", folder / "runs")


def cached(made: Path, folder: Path) -> None:
    shutil.copytree(made / "cache", folder / "cache")


def rows(folder: Path) -> Mapping[str, object]:
    """The finished row of an evaluation: those that were killed say that they are unfinished."""
    records = [json.loads(path.read_text()) for path in folder.glob("rows/*/result.json")]
    return {"metrics": [record["metrics"] for record in records if record["status"] == "finished"], **debris(folder)}


def contents(folder: Path) -> Mapping[str, object]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.suffix != ".lock"}


def debris(folder: Path) -> Mapping[str, object]:
    """What somebody was in the middle of writing."""
    return {
        "debris": sorted(
            str(p.relative_to(folder)) for p in folder.rglob(".*") if p.suffix != ".lock" and "index" not in p.name
        )
    }


def seeds(folder: Path) -> Mapping[str, object]:
    """Of a sweep: every run, by its seed."""
    runs = {
        path.name.rpartition("-s")[2]: path for path in (folder / "runs").iterdir() if (path / "result.json").is_file()
    }
    return {name: outcome(path) for name, path in runs.items()} | debris(folder)


VICTIMS = (
    Victim(
        "sweep", lambda made, folder: None, lambda folder: ("-m", "seed=0,1", *command(folder)), seeds,
        lambda found: found.keys() == {"0", "1", "debris"} and all(found[seed]["status"] == "finished" for seed in "01"),
    ),
    Victim(
        "resume", interrupted, lambda folder: ("resume", str(only(folder / "runs"))), lambda folder: outcome(only(folder / "runs")),
        lambda found: found["status"] == "finished",
    ),
    Victim(
        "evaluate", copied,
        lambda folder: ("evaluate", str(only(folder / "runs")), f"results_dir={folder / 'rows'}", "eval=quick", "eval.questions=10"), rows,
        lambda found: len(found["metrics"]) == 1 and bool(found["metrics"][0]),
    ),
    Victim(
        "export", copied,
        lambda folder: ("export", str(only(folder / "runs")), "--merged", "--output", str(folder / "exports" / "model")),
        lambda folder: contents(folder / "exports"), lambda found: any(name.endswith(".safetensors") for name in found),
    ),
    Victim(
        "cache", cached, lambda folder: ("cache", "prune", "--all", "--cache-dir", str(folder / "cache")),
        lambda folder: contents(folder / "cache"), lambda found: not any(name.endswith(".safetensors") for name in found),
    ),
)  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def make(made: Path, seconds: Mapping[str, float]) -> None:
    """What the commands need: a finished run, its cache, and one that was killed."""
    for _ in range(TRIES):
        with folder() as here:
            run_is_killed(here, "ppo", seconds["ppo"] / 2, signal.SIGKILL)
            if json.loads((only(here / "runs") / "result.json").read_text())["status"] == "running":
                shutil.copytree(here / "runs", made / "interrupted")
                return
    raise SystemExit(too_fast("a run"))


def too_fast(name: str) -> str:
    return f"{name} ended before it could be killed, {TRIES} times."


def of_commands(options: argparse.Namespace, rng: random.Random, made: Path) -> tuple[Counter[str], Counter[str]]:
    tries, equal = Counter[str](), Counter[str]()
    for number, victim in enumerate(VICTIMS):
        with folder() as here:  # nothing is killed
            victim.prepare(made, here)
            begun = time.monotonic()
            unkilled(here, victim.name, *victim.arguments(here))
            length, expected = time.monotonic() - begun, victim.found(here)
            if not victim.whole(expected):
                raise SystemExit(f"{victim.name}, which nobody killed, did not leave what it should.")
        attempts = 0
        while tries[victim.name] < options.kills // (2 * len(VICTIMS)):
            if attempts == TRIES:
                raise SystemExit(too_fast(victim.name))
            attempts += 1
            with folder() as here:
                victim.prepare(made, here)
                how = SIGNALS[(tries[victim.name] + number) % len(SIGNALS)]
                if not is_ended(start(here, *victim.arguments(here)), rng.uniform(0, length), how):
                    continue
                tries[victim.name] += 1
                attempts = 0
                well = ends_well(here, *victim.arguments(here))
                equal[victim.name] += told(victim.name, how, expected, victim.found(here), here, well=well)
    return tries, equal


def told(
    name: str,
    how: signal.Signals,
    expected: Mapping[str, object],
    found: Mapping[str, object],
    here: Path,
    *,
    well: bool,
) -> bool:
    """Whether they are equal and the command that was given again ended `well`; says where not."""
    differ = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    differ += [] if well else ["exit codes"]
    if differ:
        print(f"{name}, {how.name}: {', '.join(sorted(differ))} differ", flush=True)
        print((here / "log").read_text()[-2000:], file=sys.stderr)
    return not differ


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="alignbench-kills-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)

    import peft  # noqa: F401  (once, before anything is forked)
    import polars  # noqa: F401

    import alignbench.pipeline.run  # noqa: F401

    with folder() as whole:
        unkilled(whole, "the run", *command(whole))
        expected, seconds = outcome(only(whole / "runs")), dict(stages((whole / "log").read_text()))
        if expected["status"] != "finished":
            print("The run that nobody kills did not finish.", file=sys.stderr)
            return 1
        print("unkilled:", ", ".join(f"{stage} {seconds[stage]:.1f} s" for stage in STAGES), flush=True)
        make(whole, seconds)
        tries, equal = of_commands(options, rng, whole)
    attempts = 0
    while (count := sum(tries.values())) < options.kills:
        if attempts == TRIES:
            raise SystemExit(too_fast(f"the stage {STAGES[count % len(STAGES)]}"))
        attempts += 1
        stage, how = STAGES[count % len(STAGES)], SIGNALS[count % len(SIGNALS)]
        with folder() as here:
            if not run_is_killed(here, stage, rng.uniform(0, seconds[stage]), how):
                continue  # it was faster this time
            tries[f"run, {stage}"] += 1
            attempts = 0
            again = command(here) if count % 2 else ("resume", str(only(here / "runs")))
            well = ends_well(here, *again)
            found = outcome(only(here / "runs"))
            equal[f"run, {stage}"] += told(f"{stage}, {again[0]}", how, expected, found, here, well=well)
    for name, number in tries.items():
        print(f"{name:<20} {equal[name]:>3} of {number:>3} equal")
    print(f"{'all':<20} {sum(equal.values()):>3} of {sum(tries.values()):>3} equal")
    return 0 if equal == tries else 1


if __name__ == "__main__":
    sys.exit(main())
