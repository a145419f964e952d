"""A command and a section of the report: how often a word is said."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from alignbench import ReportRow, Section, UserError

GENERATIONS = "generations.jsonl"


def share(run: Path, word: str) -> float:
    """Of the responses that a run's evaluation sampled, those that say the word."""
    file = run / GENERATIONS
    if not file.is_file():
        raise UserError(f"{run} has no {GENERATIONS}: name the directory of a finished run.")
    texts = [json.loads(line)["response"] for line in file.read_text(encoding="utf-8").splitlines()]
    said = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    return sum(bool(said.search(text)) for text in texts) / max(len(texts), 1)


def main(arguments: Sequence[str]) -> int:
    """`alignbench word-share RUN ... --word yes`; returns the exit code."""
    parser = argparse.ArgumentParser("alignbench word-share", description="How often responses say a word.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--word", default="yes", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    for run in chosen.runs:
        print(f"{run}: {share(run, chosen.word):.3f}")
    return 0


def section(rows: Sequence[ReportRow], word: str = "yes") -> Section | None:
    """For each row of the table, over all of its runs."""
    from matplotlib.figure import Figure

    known = {
        " ".join(row.label): [share(run, word) for run in row.runs if (run / GENERATIONS).is_file()] for row in rows
    }
    means = {label: sum(shares) / len(shares) for label, shares in known.items() if shares}
    if not means:
        return None
    figure = Figure(figsize=(6, 0.6 + 0.4 * len(means)))
    figure.subplots().barh(list(means), list(means.values()))
    table = tuple((label, f"{mean:.3f}") for label, mean in means.items())
    return Section(f"Responses that say {word}", ("Means over seeds.",), ("row", "share"), table, (figure,))
