"""Makes the tables of PLAN.md, step by step, and goes on where it was stopped:

    python results/make.py                      # what the steps are, and their commands
    python results/make.py exact world          # these steps
    python results/make.py world --keep         # no run: packs what is finished into results/records, and prints the table
    python results/make.py world --jobs 2       # two runs at a time, with the extra joblib

Each step is plain commands of `python -m alignbench`, printed before they run, one thread each. Runs that are finished, with the same
settings and code, are kept by alignbench itself, so that the same step again goes on; its last command packs them into
results/records/<step>, which `alignbench compare` reads. What a command took is in results/records/<step>/commands.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from alignbench.app.overrides import quoted

HERE = Path(__file__).resolve().parent
RUN = ("python", "-m", "alignbench")
SPACES = HERE.parent / "conf" / "hydra" / "sweeper"
ALGORITHMS = sorted(path.stem.removeprefix("tune_") for path in SPACES.glob("tune_*.yaml"))
"""Every algorithm that there is a space for, to search its settings in: a new one needs that file and no change here."""
IN_THE_WORLD = [algo for algo in ALGORITHMS if algo != "gdpo"]  # a learned reward has no parts, which it needs
EVERY = f"algo={','.join(IN_THE_WORLD)}"
COMPARED = ("ppo", "dpo", "rloo", "best_of_n")
OTHER_ANNOTATORS = ("sycophantic", "honest")
NO_DATA = "<folder of HH-RLHF: HH_RLHF=...>"
NO_QUESTIONS = "<folder of evaluation data: EVAL_DATA=...>"
MISSING = {
    NO_DATA: "a folder with the files of HH-RLHF: set HH_RLHF",
    NO_QUESTIONS: "a folder of evaluation data (docs/evaluation.md, `eval.path`): set EVAL_DATA",
}
JUDGE = "results/runs/judge"
PROMPTS = (25, 100, 400, 1600)
OTHER_RANKINGS = ("annotator.temperature=1.5", "annotator.rating_step=2", "annotator.sycophants=0.25")
SEEDS = "seed=0,1,2,3,4"
TRIALS, BUDGET, KL_LIMIT = 8, 7680, 4
POINTS = ("eval.every=10", "eval.points.families=[optimization]")
# 900 prompts: what a seed's row owes to them is half of what it owes to the seed.
TUNED = ("--config-dir", "results/tuning", "-m", f"budget.samples={BUDGET}", "eval.questions=300", *POINTS)
# Two settings are searched for each algorithm, so that eight trials mean the same to all.
NOT_SEARCHED = {"ppo": ("algo.epochs=2",), "dpo": ("algo=dpo", "algo.label_smoothing=0")}

Commands = list[tuple[str, ...]]


def tune(runs: str) -> Commands:
    same = (f"hydra.sweeper.n_trials={TRIALS}", f"tune.kl_limit={KL_LIMIT}", "hydra.sweep.dir=results/tuning")
    less = ("eval.samples=1", "eval.families=[helpfulness,optimization]", "eval.frontier_samples=0")
    return [
        (*RUN, "-m", f"hydra/sweeper=tune_{algo}", *same, *less, *NOT_SEARCHED.get(algo, ()), runs)
        for algo in IN_THE_WORLD
    ]


def world(runs: str) -> Commands:
    return [(*RUN, *TUNED, "annotator=mild", SEEDS, EVERY, runs)]


def annotators(runs: str) -> Commands:
    """As `world`, under those whom its settings were not tuned for."""
    return [(*RUN, *TUNED, f"annotator={name}", SEEDS, EVERY, runs) for name in OTHER_ANNOTATORS]


def frontier(runs: str) -> Commands:
    return [
        (*RUN, *TUNED, SEEDS, "algo=best_of_n", "algo.n=2,8,64", runs),
        (*RUN, *TUNED, SEEDS, "algo=dpo", "algo.beta=0.01,0.1,1", runs),
        *[(*RUN, *TUNED, SEEDS, f"algo={algo}", "algo.kl_coef=0,0.05,0.3", runs) for algo in ("ppo", "rloo", "grpo")],
    ]


def rankings(runs: str) -> Commands:
    few = f"algo={','.join(COMPARED)}"
    return [
        (*RUN, *TUNED, SEEDS, f"rankings.prompts={','.join(map(str, PROMPTS))}", few, runs),
        *[(*RUN, *TUNED, SEEDS, "rankings.prompts=400", other, few, runs) for other in OTHER_RANKINGS],
    ]


def exact(runs: str) -> Commands:
    return [(*RUN, "-m", "experiment=exact", SEEDS, f"algo={','.join(ALGORITHMS)}", runs)]


def exact3(runs: str) -> Commands:
    """Responses of three tokens, 259 of them."""
    return [(*RUN, "-m", "experiment=exact", "data.length=3", SEEDS, f"algo={','.join(ALGORITHMS)}", runs)]


def exact3_long(runs: str) -> Commands:
    """DPO and online DPO with the updates and the learning rate that the policy-gradient algorithms have with three tokens."""
    longer = ("algo=dpo,online_dpo", "algo.updates=400", "algo.learning_rate=6e-3")
    return [(*RUN, "-m", "experiment=exact", "data.length=3", SEEDS, *longer, runs)]


def uncovered(runs: str) -> Commands:
    """Preferences that never show some responses (arXiv 2404.10719)."""
    every = (*RUN, "-m", "experiment=exact_uncovered", SEEDS)
    return [(*every, "algo=ppo", runs), (*every, "algo=dpo", "algo.soft_labels=false", runs)]


def controls(runs: str) -> Commands:
    """Length as the reward (arXiv 2310.03716), and no KL penalty under an annotator whom agreement pleases (arXiv 2210.10760)."""
    return [
        (*RUN, *TUNED, SEEDS, "algo=ppo", "reward=learned,length", runs),
        (*RUN, *TUNED, SEEDS, "algo=ppo", "algo.kl_coef=0", "annotator=sycophantic", "eval.every=5", runs),
    ]


def arithmetic(runs: str) -> Commands:
    """Sums below ten on the tiny model, three seeds, on a reward that is verified."""
    three = (*RUN, "-m", "experiment=arithmetic", "seed=0,1,2", "algo.kl_coef=0.02")
    return [
        (*three, "algo=ppo", "algo.updates=100", runs),
        (*three, "algo=grpo,rloo", "algo.updates=150", runs),
    ]


def aa(runs: str) -> Commands:
    """PPO against itself: seventeen seeds of a short training, of which benchmarks/aa_test.py makes tables."""
    shorter = ("pretrain.updates=100", "sft.updates=120", "rankings.prompts=300", "reward.passes=2", "algo.updates=15")
    less = ("data.train_prompts=4000", "data.demonstrations=8000", "eval=quick")
    return [(*RUN, "-m", f"seed={','.join(map(str, range(17)))}", *shorter, *less, runs)]


def hacking(runs: str) -> Commands:
    folder = os.environ.get("HH_RLHF", NO_DATA)
    path = f"data.path={quoted(folder)}"
    return [(*RUN, "-m", "experiment=hacking_smollm2", path, "seed=0,1,2", "algo.kl_coef=0,0.2,0.05", runs)]


def sums(runs: str) -> Commands:
    """Rejection sampling from the policy, as the others sample."""
    three = (*RUN, "-m", "experiment=sums_smollm2", "seed=0,1,2")
    return [
        (*three, "algo=ppo,grpo", runs),
        (*three, "algo=rejection_sampling", "algo.samples_from=policy", runs),
    ]


def sums_nf4(runs: str) -> Commands:
    """GRPO on four bits; its table is that of `sums` and this one together."""
    return [(*RUN, "-m", "experiment=sums_smollm2", "seed=0,1,2", "algo=grpo", "model.quantization=nf4", runs)]


def preferences(runs: str) -> Commands:
    """Human preferences: the judge first, then three seeds. The policies' reward model and SFT model are those of the seed."""
    folder = os.environ.get("HH_RLHF", NO_DATA)
    questions = f"eval.path={quoted(os.environ.get('EVAL_DATA', NO_QUESTIONS))}"
    data = (f"data.path={quoted(folder)}", questions, f"judge.model={JUDGE}")
    three = (*RUN, "-m", "experiment=preferences_smollm2", *data, "seed=0,1,2")
    sampling = ("algo.updates=20", "algo.learning_rate=3e-4", "eval.every=5")  # as in `hacking`
    return [
        ("python", "results/held_out_reward_model.py", folder, "--output", JUDGE),
        (*three, "algo=ppo,rloo", *sampling, runs),
        (*three, "algo=dpo", "eval.every=24", runs),
    ]


STEPS: dict[str, Callable[[str], Commands]] = {
    step.__name__: step
    for step in (
        tune,
        exact,
        exact3,
        exact3_long,
        uncovered,
        world,
        annotators,
        frontier,
        rankings,
        controls,
        arithmetic,
        aa,
        hacking,
        preferences,
        sums,
        sums_nf4,
    )
}
# What does not belong in one table (other data, another number of rankings), or is too wide for one.
TABLES = {
    "annotators": tuple(f"annotator={name}" for name in OTHER_ANNOTATORS),
    "rankings": tuple(f"rankings.prompts={number}" for number in PROMPTS),
    "controls": ("annotator=mild", "reward=length", "annotator=sycophantic"),
}
# 900 prompts each: of examples the scores that are tested are kept.
PRIMARY_ALONE = ("world", "annotators", "frontier", "rankings", "controls", "aa")


def commands(step: str, jobs: int = 1) -> Commands:
    """With `jobs`, the runs of a sweep share the cores; a tuner's trials stay one after another, for each learns from those before."""
    todo = STEPS[step](f"results_dir=results/runs/{step}")
    if jobs == 1 or step == "tune":
        return todo
    return [(*command, "hydra/launcher=local_processes", f"hydra.launcher.n_jobs={jobs}") for command in todo]


def keep(step: str) -> Commands:
    """Packs the step's runs and prints its tables. What was tuned is kept as it is, in results/tuning."""
    if step == "tune":
        return []
    few = ("--primary",) if step in PRIMARY_ALONE else ()
    records = f"results/records/{step}"
    shown = [("alignbench", "compare", records, *(("--only", one) if one else ())) for one in TABLES.get(step, ("",))]
    return [("python", "results/keep.py", step, f"results/runs/{step}", *few), *shown]


def carry_out(step: str, todo: Commands) -> int:
    """The commands, one after another; one that fails (a run of a sweep did) does not keep the next from its turn."""
    for missing, needed in MISSING.items():
        if any(missing in part for command in todo for part in command):
            print(f"{step} needs {needed} to it.", file=sys.stderr)
            return 1
    for name in ("HH_RLHF", "EVAL_DATA"):
        folder = os.environ.get(name)
        if folder and not Path(folder).exists() and any(folder in part for command in todo for part in command):
            print(f"{step}: {name}={folder}: there is no such folder.", file=sys.stderr)
            return 1
    failed = 0
    for command in todo:
        print(f"\n$ {shlex.join(command)}", flush=True)
        before, start = _cpu(), time.monotonic()
        code = subprocess.run(_here(command), cwd=HERE.parent, check=False).returncode
        failed += code != 0
        if command[: len(RUN)] == RUN:
            _note(step, command, code, _cpu() - before, time.monotonic() - start)
    return failed


def _without_path(part: str) -> str:
    """Where data lie is this machine's."""
    name, given, _ = part.partition("=")
    return f"{name}=..." if given and name in ("data.path", "eval.path") else part


def _here(command: Sequence[str]) -> list[str]:
    """With the Python that this is: `alignbench` need not be on the path."""
    program = [sys.executable, "-m", "alignbench"] if command[0] == "alignbench" else [sys.executable]
    return [*program, *command[1:]]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _note(step: str, command: Sequence[str], code: int, cpu: float, wall: float) -> None:
    git = ("git", "-C", str(HERE), "rev-parse", "HEAD")
    line = {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(map(_without_path, command)),
        "exit_code": code,
        "cpu_seconds": round(cpu, 1),
        "seconds": round(wall, 1),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or None,
    }
    path = HERE / "records" / step / "commands.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--keep", action="store_true", help="pack what is finished, and run nothing")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; 1 by default")
    options = parser.parse_args(argv)
    if unknown := [step for step in options.steps if step not in STEPS]:
        parser.error(f"{unknown[0]!r} is no step: choose among {', '.join(STEPS)}.")
    if options.jobs < 1:
        parser.error("--jobs: 1 or more runs at a time")
    if not options.steps:
        for step in STEPS:
            print(f"# {step}", *(shlex.join(command) for command in [*commands(step), *keep(step)]), "", sep="\n")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    failed = [
        carry_out(step, [*([] if options.keep else commands(step, options.jobs)), *keep(step)])
        for step in options.steps
    ]
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
