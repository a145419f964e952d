"""Does a reward model's accuracy foretell what becomes of the truth when responses are chosen by it?

Reward models of different quality on the embedded world (fitted to more and fewer rankings, of annotators with and without a
bias, and controls) are measured by `alignbench evaluate-reward`: accuracy on rankings that they have not seen, and the gold reward of the
best of 1 to 64 responses of the SFT model. Writes a table, and the correlation of the two over all reward models.

    python benchmarks/reward_models.py --output results/reward_models.md
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from alignbench.commands.cli import run_command
from alignbench.evaluation.reward_models.found import spearman
from alignbench.results.compared.table import Cell, Row, build_table
from alignbench.results.disk.runs import find_runs

COLLECTED = 1800
"""Rankings that are collected for each seed; those that a reward model is not fitted to measure it."""
QUESTIONS = 50
ACCURACY, CHOSEN = "reward/accuracy", "reward/gold_at_64"
SHOWN = (
    ACCURACY,
    "reward/best_of_k",
    "reward/gold_correlation",
    "reward/gold_at_1",
    "reward/gold_at_4",
    "reward/gold_at_16",
    CHOSEN,
)


def sources(fitted_to: Sequence[int], biased: Sequence[str], controls: Sequence[str]) -> dict[str, list[str]]:
    """What is measured, by its name in the table."""
    found = {f"mild annotator, {n} rankings": ["reward=learned", _held_out(n)] for n in fitted_to}
    most = max(fitted_to)
    for annotator in biased:
        found[f"{annotator} annotator, {most} rankings"] = ["reward=learned", f"annotator={annotator}", _held_out(most)]
    return found | {name: [f"reward={name}", _held_out(most)] for name in controls}


def _held_out(fitted_to: int) -> str:
    return f"rankings.held_out={1 - fitted_to / COLLECTED:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rankings", type=int, nargs="+", default=[25, 100, 400, 1600])
    parser.add_argument("--annotators", nargs="*", default=["sycophantic", "honest"], help="beside the mild one")
    parser.add_argument("--controls", nargs="*", default=["length", "gold"], help="sources that nothing is fitted for")
    parser.add_argument("--runs", type=Path, default=Path("results/runs/reward_models"), help="where the rows go")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="further settings of every run")
    options = parser.parse_args()
    rows = {}
    for name, own in sources(options.rankings, options.annotators, options.controls).items():
        folder = options.runs / name.replace(" ", "_").replace(",", "")
        for seed in options.seeds:
            if list(folder.glob(f"*-s{seed}-*/examples.parquet")):
                continue  # measured before
            settings = [
                *own,
                f"--questions={QUESTIONS}",
                f"rankings.prompts={COLLECTED}",
                f"seed={seed}",
                f"results_dir={folder}",
                *options.overrides,
            ]
            if run_command(["evaluate-reward", *settings]):
                raise SystemExit(f"{name}, seed {seed}, failed.")
        (rows[name],) = build_table(*find_runs([folder])).rows
        options.output.write_text(page(rows, sys.argv[1:]), encoding="utf-8")


def page(rows: dict[str, Row], arguments: Sequence[str]) -> str:
    header = ["reward source", *(name.partition("/")[2].replace("_", " ") for name in SHOWN)]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * len(SHOWN)]
    lines += [
        "| " + " | ".join([name, *(_cell(row.cells.get(metric)) for metric in SHOWN)]) + " |"
        for name, row in rows.items()
    ]
    learned = {name: row for name, row in rows.items() if "mild" in name}
    any_row = next(iter(rows.values()))
    said = [_foretells(learned, "Reward models of one annotator that differ in how many rankings they were fitted to")]
    said.append(
        _foretells(
            {n: r for n, r in rows.items() if "rankings" in n},
            "All reward models, each measured by its own annotator's rankings",
        )
    )
    return "\n".join(
        [
            "# Does a reward model's accuracy foretell what becomes of the truth?",
            "",
            f"    python benchmarks/reward_models.py {shlex.join(arguments)}",
            "",
            f"`alignbench evaluate-reward` on the embedded world, model `tiny`, {len(any_row.seeds)} seeds: mean ± half a 95% interval over seeds "
            f"(Student's t). Accuracy and best of K (4 responses) are on those of {COLLECTED:,} rankings that a source was not fitted to; gold at n is the gold "
            f"reward of the best of n responses of the SFT model by the source's score, on {QUESTIONS} evaluation questions.",
            "",
            *lines,
            "",
            *said,
            "",
        ]
    )


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    return f"{cell.value:.2f}" + (f" ±{cell.half_interval:.2f}" if cell.half_interval == cell.half_interval else "")


def _foretells(rows: dict[str, Row], which: str) -> str:
    """Over reward models and seeds: each is one point."""
    points = [
        tuple(run.record.metrics[metric].value for metric in (ACCURACY, CHOSEN))
        for row in rows.values()
        for run in row.runs
    ]
    if len(points) < 3:
        return ""
    accuracy, gold = zip(*points, strict=True)
    linear = statistics.correlation(accuracy, gold) if len(set(accuracy)) > 1 and len(set(gold)) > 1 else float("nan")
    return (
        f"- {which} ({len(points)} of them): accuracy and gold at 64 have rank correlation {spearman(accuracy, gold):.2f} "
        f"and correlation {linear:.2f}."
    )


if __name__ == "__main__":
    main()
