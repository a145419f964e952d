"""`alignbench tutorial`: RLHF from SFT to DPO on the embedded world, one section after another, each with what it measured."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignbench.errors import AlignbenchError, unknown_name
from alignbench.paths import given_path
from alignbench.results.compared.training_points import Points
from alignbench.results.disk.directory import BASELINE, RANKINGS
from alignbench.results.disk.record import FEEDBACK, Status
from alignbench.results.disk.runs import StoredRun, find_runs

DEFAULT = Path("results/tutorial")
COMMON = ("eval.questions=150", "eval.every=10")
"""A quarter of the evaluation questions, and a look at the policy every ten updates."""
PPO, CLOSE, FREE = "algo.kl_coef=0.1", "algo.kl_coef=1", "algo.kl_coef=0"
RUNS: Mapping[str, tuple[str, ...]] = {
    "ppo": ("algo=ppo", PPO),
    "close": ("algo=ppo", CLOSE),
    "free": ("algo=ppo", FREE),
    "sycophantic": ("algo=ppo", PPO, "annotator=sycophantic"),
    "dpo": ("algo=dpo",),
}
"""What is run, by the name that sections call it. They share the SFT model, and those of one annotator the rankings and the reward
model."""
GOLD, PROXY, KL = "optimization/gold_reward", "optimization/proxy_reward", "optimization/kl"
AGREEMENT, ENTROPY, UNIQUE = "sycophancy/agreement", "diversity/entropy", "diversity/unique"


@dataclass(frozen=True)
class Finished:
    """A run of the tutorial and the SFT model that it started from."""

    run: StoredRun
    sft: StoredRun


Runs = Mapping[str, Finished]


@dataclass(frozen=True)
class Section:
    """`runs` are those of RUNS that it looks at, `look` the page to open, `figures` what was measured."""

    title: str
    words: str
    runs: tuple[str, ...]
    look: str
    figures: Callable[[Runs], list[str]]


def _line(name: str, run: StoredRun, metrics: Sequence[str]) -> str:
    known = run.record.metrics
    return f"{name:<34}" + "".join(
        f"{known[metric].value:>{max(len(_short(metric)), 8) + 2}.2f}"
        if metric in known
        else f"{'–':>{max(len(_short(metric)), 8) + 2}}"
        for metric in metrics
    )


def _short(metric: str) -> str:
    return metric.partition("/")[2].replace("_", " ")


def _table(rows: Sequence[tuple[str, StoredRun]], *metrics: str) -> list[str]:
    head = f"{'':<34}" + "".join(f"{_short(metric):>{max(len(_short(metric)), 8) + 2}}" for metric in metrics)
    return [head, *(_line(name, run, metrics) for name, run in rows)]


def _sft(runs: Runs) -> list[str]:
    return _table([("SFT model", runs["ppo"].sft)], GOLD, "helpfulness/accuracy", AGREEMENT, ENTROPY)


def _rankings(runs: Runs) -> list[str]:
    path = runs["ppo"].run.path / RANKINGS
    with path.open(encoding="utf-8") as file:
        ranking = json.loads(next(file))
    counts = runs["ppo"].run.record.counts
    best_first = sorted(zip(ranking["ranks"], ranking["responses"], strict=True))
    return [
        f"{counts[f'{FEEDBACK}/rankings']} rankings of {len(ranking['responses'])} responses each; the first of them:",
        *(f"  {message['role']}: {message['content']}" for message in ranking["messages"]),
        *(f"  {rank + 1}. {response}" for rank, response in best_first),
    ]


def _reward(runs: Runs) -> list[str]:
    reports = runs["ppo"].run.record.reports
    return [
        f"held-out pairs told rightly           {reports['reward/held_out_accuracy']:.2f} "
        f"of at most {reports['reward/annotator_ceiling']:.2f}: the annotator is not sure either",
        f"correlation of reward with length    {reports['reward/length_correlation']:+.2f}",
    ]


def _ppo(runs: Runs) -> list[str]:
    return _table([("SFT model", runs["ppo"].sft), ("PPO", runs["ppo"].run)], PROXY, GOLD, KL, "helpfulness/accuracy")


def _coefficients(runs: Runs) -> list[str]:
    named = (("PPO, KL coefficient 1", "close"), ("PPO, KL coefficient 0.1", "ppo"), ("PPO, KL coefficient 0", "free"))
    return _table([("SFT model", runs["ppo"].sft), *((text, runs[n].run) for text, n in named)], PROXY, GOLD, KL)


def _hacking(runs: Runs) -> list[str]:
    lines = Points(runs["free"].run.path).lines()
    named = [
        (line["update"], *(line["metrics"][m]["value"] for m in (PROXY, GOLD, KL)))
        for line in lines
        if all(m in line["metrics"] for m in (PROXY, GOLD, KL))
    ]
    peak = max(named, key=lambda point: point[2])
    return [
        "Without a penalty, along its training (50 questions):",
        f"{'update':>8}{'proxy':>8}{'gold':>8}{'KL':>8}",
        *(f"{u:>8}{p:>8.2f}{g:>8.2f}{k:>8.2f}{'  highest gold' if u == peak[0] else ''}" for u, p, g, k in named),
    ]


def _sycophancy(runs: Runs) -> list[str]:
    named = (("annotator who wants the truth more", "ppo"), ("annotator who wants agreement more", "sycophantic"))
    rows = [("SFT model", runs["ppo"].sft), *((text, runs[name].run) for text, name in named)]
    return _table(rows, PROXY, GOLD, AGREEMENT, "sycophancy/accuracy_wrong")


def _collapse(runs: Runs) -> list[str]:
    named = (("PPO, KL coefficient 1", "close"), ("PPO, KL coefficient 0.1", "ppo"), ("PPO, KL coefficient 0", "free"))
    rows = [("SFT model", runs["ppo"].sft), *((text, runs[name].run) for text, name in named)]
    return _table(rows, ENTROPY, UNIQUE, "diversity/distinct_2", "diversity/self_bleu")


def _dpo(runs: Runs) -> list[str]:
    rows = [("SFT model", runs["dpo"].sft), ("PPO, KL coefficient 0.1", runs["ppo"].run), ("DPO", runs["dpo"].run)]
    seconds = {name: runs[name].run.record.cost.seconds for name in ("ppo", "dpo")}
    spent = {name: sum(v for k, v in s.items() if k in ("reward", name)) for name, s in seconds.items()}
    return [
        *_table(rows, GOLD, KL, AGREEMENT, ENTROPY),
        f"seconds after the rankings: PPO with its reward model {spent['ppo']:.0f}, DPO {spent['dpo']:.0f}",
    ]


SECTIONS = (
    Section(
        "SFT",
        "A small model learns to answer from demonstrations. The demonstrator errs, and often agrees with what the user wrongly "
        "believes: the model learns that too. It is where every algorithm starts, and what it is measured from.",
        ("ppo",),
        "/?view=runs",
        _sft,
    ),
    Section(
        "Rankings",
        "The SFT model answers each prompt several times, and an annotator puts the responses in order. People can do the same at /rank.",
        ("ppo",),
        "/rank",
        _rankings,
    ),
    Section(
        "Reward model",
        "A model learns from the rankings to give the response that was liked better the higher score. It is a proxy: what people "
        "like, as far as these rankings tell.",
        ("ppo",),
        "/?view=runs",
        _reward,
    ),
    Section(
        "PPO",
        "The policy is trained to earn more of the proxy reward. The gold reward is the truth, which only a simulated world knows.",
        ("ppo",),
        "/?view=responses",
        _ppo,
    ),
    Section(
        "KL penalty",
        "Each nat of distance from the SFT model costs so much reward: the KL coefficient. A large one keeps the policy close, none "
        "lets it go wherever the reward model sends it.",
        ("ppo", "close", "free"),
        "/?view=plots&plot=frontier",
        _coefficients,
    ),
    Section(
        "Reward hacking",
        "Without a penalty the proxy goes on rising while the truth falls: the policy has found what the reward model likes, not what "
        "is right.",
        ("free",),
        "/?view=plots&plot=overoptimisation",
        _hacking,
    ),
    Section(
        "Sycophancy",
        "An annotator whom agreement pleases more than truth teaches the policy to repeat wrong opinions. The KL penalty slows "
        "that; only another annotator prevents it.",
        ("ppo", "sycophantic"),
        "/?view=plots&plot=sycophancy",
        _sycophancy,
    ),
    Section(
        "Mode collapse",
        "What is rewarded most is said ever more often: entropy falls, and the responses to one prompt become one. Least where the "
        "penalty is large.",
        ("ppo", "close", "free"),
        "/?view=plots&plot=diversity",
        _collapse,
    ),
    Section(
        "DPO",
        "The same rankings without a reward model and without sampling: the policy itself is the reward model, and its distance "
        "from the SFT model is in the loss.",
        ("ppo", "dpo"),
        "/?view=differences",
        _dpo,
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Runs what was not run before and prints every section; returns the exit code."""
    options = _parser().parse_args(list(arguments))
    sections = [_section(name) for name in options.sections] or list(SECTIONS)
    if options.list:
        for section in SECTIONS:
            made = [command(name, options.results) for name in first_looked_at(section)]
            print("\n".join([section.title, *(f"    {text}" for text in made)]))
        return 0
    runs: dict[str, Finished] = {}
    for i, section in enumerate(SECTIONS, start=1):
        if section not in sections:
            continue
        print(f"\n{i}. {section.title}\n{textwrap.fill(section.words, 100)}\n", flush=True)
        for name in section.runs:
            if name not in runs:
                runs[name] = _made(name, options.results, options.settings)
        print("\n".join(f"    {line}" for line in section.figures(runs)))
        print(
            f"\n    Look at it: alignbench page {options.results}, then http://127.0.0.1:8400{section.look}", flush=True
        )
    return 0


def first_looked_at(section: Section) -> list[str]:
    """The runs that no section before it has."""
    before = [name for earlier in SECTIONS[: SECTIONS.index(section)] for name in earlier.runs]
    return [name for name in section.runs if name not in before]


def command(name: str, results: Path) -> str:
    """As somebody would type it."""
    return " ".join(["python -m alignbench", *RUNS[name], *COMMON, f"results_dir={results}"])


def _section(name: str) -> Section:
    for section in SECTIONS:
        if section.title.casefold() == name.casefold():
            return section
    raise unknown_name("section", name, [section.title for section in SECTIONS])


def _made(name: str, results: Path, settings: Sequence[str]) -> Finished:
    """The run, made where it is not there: a killed tutorial goes on where it was, update by update."""
    overrides = [*RUNS[name], *COMMON, f"results_dir={results}", *settings]
    if not (found := _found(overrides)):
        print(f"$ {' '.join(['python -m alignbench', *overrides])}", flush=True)
        done = subprocess.run([sys.executable, "-m", "alignbench", *overrides], check=False)
        found = _found(overrides)
        if done.returncode or not found:
            raise AlignbenchError(
                f"The run of {' '.join(RUNS[name])} did not finish; what it said stands above. The same command goes on with it."
            )
    return found


def _found(overrides: Sequence[str]) -> Finished | None:
    """The finished run of these settings."""
    from alignbench.app.compose import load_config
    from alignbench.pipeline.lifecycle import candidates

    for path in candidates(load_config(overrides)):
        by_path = {run.path: run for run in find_runs([path])[0]}
        run, sft = by_path.get(path), by_path.get(path / BASELINE)
        if run and sft and run.record.status is Status.FINISHED:
            return Finished(run, sft)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench tutorial",
        description="RLHF on the embedded world, from SFT to DPO: makes a few runs (about seven CPU-minutes) and says what each shows. "
        "Ctrl-C and the same command again go on where it was. docs/tutorial.md has the pictures.",
    )
    add = parser.add_argument
    add("settings", nargs="*", metavar="OVERRIDE", help="further settings of every run, as seed=1")
    add("--results", type=given_path, default=DEFAULT, metavar="DIR", help="where its runs go (default: %(default)s)")
    add("--section", dest="sections", action="append", default=[], metavar="TITLE", help="only this one; repeat it")
    add("--list", action="store_true", help="the sections and their commands, without running any")
    return parser
