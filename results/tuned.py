"""The tables of tuning.md:

    python results/tuned.py                             # from results/records/tune/trials.csv
    python results/tuned.py --keep results/runs/tune    # first puts the trials that lie there into it
    python results/tuned.py --against results/records/world    # what the best trials promised, and what a table with other seeds kept

A trial's gold reward is what it was chosen by, among those within 4 nats of the SFT model. Where a learned reward scored the responses,
its mean stands beside: by it somebody chooses who has no gold. The SFT model that all trials start from is a line of that file too.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from alignbench.errors import UserError
from alignbench.paths import given_path
from alignbench.results.compared.table import build_table
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import find_runs

RESULTS = Path(__file__).resolve().parent
TRIALS = RESULTS / "records" / "tune" / "trials.csv"
KL_LIMIT = 4.0
MEASURED = {"gold": "helpfulness/gold_reward", "kl": "optimization/kl", "proxy": "optimization/proxy_reward"}
SETTINGS = ("learning_rate", "price", "value")
COLUMNS = ("algo", *SETTINGS, *MEASURED)
START = "sft"
NOT_PRICES = {"algo.learning_rate", "algo.epochs", "algo.label_smoothing"}
Trial = dict[str, str]


def kept(runs: Path) -> list[Trial]:
    """The finished trials below `runs`, by algorithm and settings; a trial that a run was begun twice for once."""
    found: dict[tuple[str, ...], Trial] = {}
    searched = {
        path.stem.removeprefix("tiny-"): _searched(path)
        for path in sorted((RESULTS / "tuning" / "trials").glob("*.csv"))
    }
    for run in find_runs([runs])[0]:
        algo = run.record.identity.algo
        if run.record.status is not Status.FINISHED or (algo not in searched and not run.record.baseline):
            continue
        metrics = run.record.metrics
        measured = {name: f"{metrics[metric].value:.4f}" for name, metric in MEASURED.items() if metric in metrics}
        settings = ("", "", "")
        if not run.record.baseline:
            price = searched[algo]
            rate = f"{float(run.settings['algo.learning_rate']):.3g}" if "algo.learning_rate" in run.settings else ""
            settings = (rate, price, f"{float(run.settings[price]):.3g}")
        trial = dict(zip(COLUMNS, (algo, *settings, *(measured.get(name, "") for name in MEASURED)), strict=True))
        found[algo, *settings] = trial
    return list(found.values())


def _searched(path: Path) -> str:
    """The setting that was searched beside the learning rate."""
    with path.open(encoding="utf-8") as file:
        names = next(csv.reader(file))
    return next((name for name in names if name.startswith("algo.") and name not in NOT_PRICES), "")


def by_algorithm(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    def of(trial: Trial) -> str:
        return trial["algo"]

    return {algo: list(group) for algo, group in groupby(sorted(trials, key=of), key=of) if algo != START}


def within_reach(trials: Iterable[Trial]) -> list[Trial]:
    return [trial for trial in trials if not trial["kl"] or float(trial["kl"]) <= KL_LIMIT]


def gold(trial: Trial) -> float:
    return float(trial["gold"])


def rows(trials: Iterable[Trial]) -> list[str]:
    lines = []
    for algo, every in by_algorithm(trials).items():
        near = within_reach(every)
        best = max(near, key=gold)
        scored = [trial for trial in near if trial["proxy"]]
        blind = max(scored, key=lambda trial: float(trial["proxy"]))["gold"] if scored else ""
        worst = min(map(gold, every))
        lines.append(
            f"| `{algo}` | {gold(best):.2f} | {f'{float(blind):.2f}' if blind else '–'} | {worst:.2f} | {len(near)} of {len(every)} "
            f"| {best['learning_rate'] or '–'} | `{best['price'].removeprefix('algo.')}` {best['value']} |"
        )
    return lines


def promised(trials: Sequence[Trial], runs: Path) -> list[str]:
    """Gains over the SFT model in gold reward: of each algorithm's best trial, and of its row in the table of `runs`. Furthest first."""
    table = build_table(find_runs([runs])[0])
    started = [row.cells for row in table.rows if row.baseline and MEASURED["gold"] in row.cells]
    names = [row.identity.algo for row in table.rows if not row.baseline]
    if len(started) != 1 or len(names) > len(set(names)):
        raise UserError(f"--against {runs}: it takes one SFT model with a gold reward and one row an algorithm.")
    kept = {row.identity.algo: row.cells for row in table.rows if not row.baseline and MEASURED["gold"] in row.cells}
    before = started[0][MEASURED["gold"]].value
    (start,) = (gold(trial) for trial in trials if trial["algo"] == START)
    found = []
    for algo, every in by_algorithm(trials).items():
        if cells := kept.get(algo):
            kl = cells[MEASURED["kl"]].value if MEASURED["kl"] in cells else None
            best = max(map(gold, within_reach(every))) - start
            found.append((algo, kl, best, cells[MEASURED["gold"]].value - before))
    found.sort(key=lambda line: (line[1] is None, -(line[1] or 0)))
    return [
        f"| `{algo}` | {'–' if kl is None else f'{kl:.2f}'} | {best:+.2f} | {gain:+.2f} | {best - gain:+.2f} |"
        for algo, kl, best, gain in found
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=given_path, metavar="RUNS", help="the folder that the tuner's runs lie in")
    parser.add_argument(
        "--against", type=given_path, metavar="RUNS", help="runs of a table; says what the best trials promised of it"
    )
    options = parser.parse_args(argv)
    trials: list[Trial] = []
    if TRIALS.is_file():
        with TRIALS.open(encoding="utf-8", newline="") as file:
            trials = list(csv.DictReader(file))
    if options.keep:
        try:
            new = kept(options.keep)
        except UserError as error:
            parser.error(str(error))
        if not new:
            parser.error(f"--keep: {options.keep} has no finished trial")
        again = {trial["algo"] for trial in new}
        trials = sorted(
            [*(trial for trial in trials if trial["algo"] not in again), *new], key=lambda trial: tuple(trial.values())
        )
        with TRIALS.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(trials)
    if options.against:
        try:
            lines = promised(trials, options.against)
        except UserError as error:
            parser.error(str(error))
        print("| | KL in the table | the tuner's best trial | the table | promised too much |")
        print("| --- | ---: | ---: | ---: | ---: |")
        print(*lines, sep="\n")
        return
    print(
        "| algorithm | gold of the best ↑ | gold of the best by proxy ↑ | of the worst | within 4 nats | learning_rate | price |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    print(*rows(trials), sep="\n")


if __name__ == "__main__":
    main()
