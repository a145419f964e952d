"""Kills commands at random moments, gives them again, and counts those that end as if nothing had happened.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --kills 100

Each time a command in a process of its own is ended at a random moment, by SIGKILL, SIGTERM, SIGINT and SIGHUP in turn, and then given
again: a run (at each of its stages in turn; it goes on by the same command or by `alignbench resume`, in turn), a sweep of two seeds, a
resume, an evaluation, an export, and pruning of a cache. Equal means the same files as where nothing was killed, bit for bit (metrics,
example scores, generations, rankings, training curves, weights), exit code 0, and nothing half-written in any folder.
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
    "pretrain.updates=4", "pretrain.batch_size=64", "sft.updates=4", "sft.batch_size=32", "rankings.prompts=24", "reward.passes=1",
    "reward.batch_size=4", "algo.updates=4", "algo.batch_size=8", "data.train_prompts=100", "data.demonstrations=200",
)  # fmt: skip
MEASURED = ("eval=quick", "eval.questions=6", "eval.frontier_samples=32", "eval.frontier_prompts=4")
TRIES = 10
"""For one kill: a command may end before the signal comes."""
PATIENCE = 600
"""Seconds after which a command hangs."""
STAGES = ("model", "pretrain", "sft", "rankings", "reward", "evaluate sft", "frontier", "ppo", "evaluate ppo")
INTERRUPTED = 130


def start(folder: Path, *arguments: str) -> int:
    """Runs a command in a forked process: what is imported here is not imported again. Its number; stderr in `log`. It works in
    `folder`, where all that it writes lies; signals find it as in a terminal, though nohup or a shell had them ignored here."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command begins: as while an interpreter starts
    os.chdir(folder)
    os.environ["ALIGNBENCH_CACHE"] = str(folder / "home")
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from alignbench.commands.cli import run_command

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os._exit(run_command(arguments))
    except KeyboardInterrupt:  # before the command, or behind it
        os._exit(INTERRUPTED)


def ends_well(folder: Path, *arguments: str) -> bool:
    """Whether a command that nobody kills ends with exit code 0."""
    return waited(start(folder, *arguments)) == 0


def waited(child: int) -> int:
    """The exit code of a process, or the number of the signal that ended it below zero."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    raise hangs(child)


def hangs(child: int) -> SystemExit:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return SystemExit(f"A command did not end within {PATIENCE} s.")


def unkilled(folder: Path, name: str, *arguments: str) -> None:
    if not ends_well(folder, *arguments):
        raise SystemExit(f"{name}, which nobody killed, failed: {(folder / 'log').read_text()[-2000:]}")


def command(folder: Path) -> tuple[str, ...]:
    return (*RUN, *MEASURED, f"results_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}")


def stages(log: str) -> list[tuple[str, float]]:
    """The stages whose line has been printed, with their seconds."""
    found = []
    for line in log.splitlines():
        for stage in ("data", *STAGES):
            if line.startswith(f"{stage:<12} ") and " s" in line:
                found.append((stage, float(line[13:].split()[0])))
    return found


def contents(folder: Path) -> dict[str, object]:
    """What must be equal in a folder of a command's: every file, and every name. Of a record, what neither time nor place decides;
    of settings, all but where they write."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[f"{name}/"] = ""
        elif path.name == "result.json":
            record = json.loads(path.read_text())
            found |= {
                f"{name}: {key}": record.get(key)
                for key in ("status", "metrics", "reports", "counts", "ended", "error")
            }
        elif path.name == "config.yaml":
            lines = path.read_text().splitlines()
            found[name] = [line for line in lines if not line.startswith(("results_dir:", "cache_dir:"))]
        else:
            found[name] = path.read_bytes()
    return found


def outcome(folder: Path) -> Mapping[str, object]:
    """The runs of a folder by seed: a run that was given up, and one made beside it, are not one run."""
    found: dict[str, object] = {}
    for run in sorted((folder / "runs").glob("*")):
        seed = run.name.rpartition("-")[0].rpartition("-")[2] if run.is_dir() else run.name
        while seed in found:
            seed += " again"
        found[seed] = ""
        found |= {f"{seed}/{name}": content for name, content in contents(run).items()} if run.is_dir() else {}
    return found | debris(folder)


def finished(found: Mapping[str, Any], *seeds: str) -> bool:
    """Whether these runs are there, with all that a run holds."""
    files = (
        "examples.parquet",
        "generations.jsonl",
        "train.jsonl",
        "rankings.jsonl",
        "frontier.json",
        "sft/examples.parquet",
    )
    return all(
        found.get(f"{seed}/result.json: status") == "finished"
        and all(found.get(f"{seed}/{name}") for name in files)
        and sum(name.startswith(f"{seed}/") and name.endswith(".safetensors") for name in found) >= 3
        for seed in seeds
    )  # fmt: skip


def only(folder: Path) -> Path:
    """The run in a folder of runs."""
    (run,) = [path for path in folder.iterdir() if path.is_dir()]
    return run


def run_is_killed(folder: Path, stage: str, moment: float, number: signal.Signals) -> bool:
    """Starts a run and ends it `moment` seconds into a stage; whether it was still at work."""
    child = start(folder, *command(folder))
    before = ("data", *STAGES)[("data", *STAGES).index(stage) - 1]
    log = folder / "log"
    until = time.monotonic() + PATIENCE
    while not (log.exists() and before in dict(stages(log.read_text()))):
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if time.monotonic() > until:
            raise hangs(child)
        time.sleep(0.005)
    return is_ended(child, moment, number)


def is_ended(child: int, moment: float, number: signal.Signals) -> bool:
    """Whether the process was still at work after `moment` seconds: then it got the signal."""
    time.sleep(moment)
    if os.waitpid(child, os.WNOHANG)[0]:
        return False
    os.kill(child, number)
    code = waited(child)
    if code not in (0, INTERRUPTED, -number):
        raise SystemExit(f"A command that got {number.name} ended with exit code {code}.")
    return code != 0


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
    shutil.copytree(made / "interrupted", folder, dirs_exist_ok=True)
    was = (folder / "was").read_text()
    for config in folder.rglob("config.yaml"):
        config.write_text(config.read_text().replace(was, str(folder)))


def cached(made: Path, folder: Path) -> None:
    shutil.copytree(made / "cache", folder / "cache")


def rows(folder: Path) -> Mapping[str, object]:
    """The finished row of an evaluation: those that were killed say that they are unfinished."""
    whole = [path.parent for path in folder.glob("rows/*/result.json") if not unfinished(path.parent)]
    found = {name: content for row in whole for name, content in contents(row).items()}
    return {"rows": len(whole), **found, **debris(folder)}


def debris(folder: Path) -> Mapping[str, object]:
    """What somebody was in the middle of writing, wherever it lies; a run that is not finished has a lock."""
    found = [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix in (".tmp", ".partial")]
    rightly = (".hydra", ".alignbench-index")
    return {
        "debris": [
            str(path.relative_to(folder))
            for path in sorted(found)
            if path.name not in rightly
            and not (path.suffix == ".lock" or (path.name == ".lock" and unfinished(path.parent)))
        ]
    }


def unfinished(run: Path) -> bool:
    record = run / "result.json"
    return record.exists() and bool(json.loads(record.read_text())["status"] != "finished")


def jobs(folder: Path) -> Mapping[str, object]:
    """Of a sweep: its runs, and how it says that its jobs went, in the folder of the one that was given last."""
    sweeps = sorted((folder / "sweep").glob("jobs-*"), key=lambda path: path.stat().st_mtime)
    reports = [json.loads(path.read_text()) for path in sorted(sweeps[-1].glob("*.json"))] if sweeps else []
    return {"jobs": [(report["job"], report["status"]) for report in reports], **outcome(folder)}


def cache(folder: Path) -> Mapping[str, object]:
    found = contents(folder / "cache") | debris(folder)
    return {name: content for name, content in found.items() if not name.endswith(".lock")}


VICTIMS = (
    Victim(
        "sweep", lambda made, folder: None,
        lambda folder: ("-m", "seed=0,1", f"hydra.sweep.dir={folder / 'sweep'}", *command(folder)), jobs,
        lambda found: found["jobs"] == [(0, "finished"), (1, "finished")] and finished(found, "s0", "s1"),
    ),
    Victim(
        "resume", interrupted, lambda folder: ("resume", str(only(folder / "runs"))), outcome,
        lambda found: finished(found, "s0"),
    ),
    Victim(
        "evaluate", copied,
        lambda folder: ("evaluate", str(only(folder / "runs")), f"results_dir={folder / 'rows'}", *MEASURED), rows,
        lambda found: found["rows"] == 1 and bool(found["result.json: metrics"]) and bool(found["generations.jsonl"]),
    ),
    Victim(
        "export", copied,
        lambda folder: ("export", str(only(folder / "runs")), "--merged", "--output", str(folder / "exports" / "model")),
        lambda folder: contents(folder / "exports") | debris(folder), lambda found: any(name.endswith(".safetensors") for name in found),
    ),
    Victim(
        "cache", cached, lambda folder: ("cache", "prune", "--all", "--cache-dir", str(folder / "cache")),
        cache, lambda found: not any(found.values()),
    ),
)  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def make(made: Path, seconds: Mapping[str, float]) -> None:
    """What the commands need: a finished run, its cache, and one that was killed."""
    for _ in range(TRIES):
        with folder() as here:
            run_is_killed(here, "ppo", seconds["ppo"] / 2, signal.SIGKILL)
            if unfinished(only(here / "runs")):
                (here / "was").write_text(str(here))
                (here / "log").unlink()
                shutil.copytree(here, made / "interrupted")
                return
    raise SystemExit(too_fast("a run"))


def too_fast(name: str) -> str:
    return f"{name} ended before it could be killed, {TRIES} times."


def of_commands(kills: int, rng: random.Random, made: Path, tries: Counter[str], equal: Counter[str]) -> None:
    for number, victim in enumerate(VICTIMS):
        with folder() as here:  # nothing is killed
            victim.prepare(made, here)
            begun = time.monotonic()
            unkilled(here, victim.name, *victim.arguments(here))
            length, expected = time.monotonic() - begun, victim.found(here)
            if not victim.whole(expected) or expected.get("debris"):
                raise SystemExit(f"{victim.name}, which nobody killed, did not leave what it should.")
        attempts = 0
        while tries[victim.name] < kills // len(VICTIMS):
            if attempts == TRIES:
                raise SystemExit(too_fast(victim.name))
            attempts += 1
            with folder() as here:
                victim.prepare(made, here)
                how = SIGNALS[(tries[victim.name] + number) % len(SIGNALS)]
                if not is_ended(start(here, *victim.arguments(here)), rng.uniform(0, length), how):
                    continue
                if victim.found(here) == expected:
                    continue  # all was done, and it was telling so
                tries[victim.name] += 1
                attempts = 0
                well = ends_well(here, *victim.arguments(here))
                equal[victim.name] += told(victim.name, how, expected, victim.found(here), here, well=well)


def of_runs(
    kills: int,
    rng: random.Random,
    expected: Mapping[str, object],
    seconds: Mapping[str, float],
    tries: Counter[str],
    equal: Counter[str],
) -> None:
    """As many as are wanting; the stages, the signals and the two ways to go on turn at three speeds, so that all meet."""
    attempts = 0
    while (count := sum(tries.values())) < kills:
        if attempts == TRIES:
            raise SystemExit(too_fast(f"the stage {STAGES[count % len(STAGES)]}"))
        attempts += 1
        stage, how = STAGES[count % len(STAGES)], SIGNALS[count % len(SIGNALS)]
        with folder() as here:
            if not run_is_killed(here, stage, rng.uniform(0, seconds[stage]), how):
                continue  # it was faster this time
            if outcome(here) == expected:
                continue  # all was done, and it was telling so
            tries[f"run, {stage}"] += 1
            attempts = 0
            run = only(here / "runs")
            resume = count // len(SIGNALS) % 2 == 0 and unfinished(run)
            again = ("resume", str(run)) if resume else command(here)
            well = ends_well(here, *again)
            name = f"run, {stage}, {'resume' if resume else 'the same command'}"
            equal[f"run, {stage}"] += told(name, how, expected, outcome(here), here, well=well)


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
    print(f"{time.strftime('%H:%M:%S')} {name}, {how.name}", file=sys.stderr, flush=True)
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
    parser.add_argument("--of", choices=("all", "commands", "runs"), default="all", help="half of it, beside the other")
    options = parser.parse_args()
    rng = random.Random(options.seed)

    import peft  # noqa: F401  (once, before anything is forked)
    import polars  # noqa: F401

    import alignbench.pipeline.evaluate
    import alignbench.pipeline.run  # noqa: F401
    from alignbench.app.compose import register_configs

    register_configs()
    with folder() as whole:
        unkilled(whole, "the run", *command(whole))
        expected, seconds = outcome(whole), dict(stages((whole / "log").read_text()))
        if not finished(expected, "s0") or expected["debris"]:
            raise SystemExit("The run, which nobody killed, did not leave what it should.")
        print("unkilled:", ", ".join(f"{stage} {seconds[stage]:.1f} s" for stage in STAGES), flush=True)
        tries, equal = Counter[str](), Counter[str]()
        if options.of != "runs":
            make(whole, seconds)
            of_commands(options.kills // (2 if options.of == "all" else 1), rng, whole, tries, equal)
    if options.of != "commands":
        of_runs(options.kills, rng, expected, seconds, tries, equal)
    for name, number in tries.items():
        print(f"{name:<20} {equal[name]:>3} of {number:>3} equal")
    print(f"{'all':<20} {sum(equal.values()):>3} of {sum(tries.values()):>3} equal")
    return 0 if equal == tries else 1


if __name__ == "__main__":
    sys.exit(main())
