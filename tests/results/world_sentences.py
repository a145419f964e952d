"""Writes what the world's table shows of an algorithm into its page: `python tests/results/world_sentences.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from alignbench.results.compared.table import Cell, build_table
from alignbench.results.disk.runs import find_runs

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "results" / "records" / "world"
PAGES = ROOT / "docs" / "algorithms"
SHARED = {"reinforce_pp_baseline": "reinforce_pp"}
"""Algorithms on the page of another."""
BEGIN = "**What our tables show:** "
SOURCE = "([world](../../results/algorithms.md), five seeds)"
_SAID = re.compile(re.escape(BEGIN) + r".*? seeds\)")


def sentences() -> dict[str, str]:
    """Of each algorithm of the table, sft aside."""
    rows = {row.label[0]: row.cells for row in build_table(find_runs([RECORDS])[0]).rows}
    start = rows.pop("sft")
    return {algo: _sentence(cells, start) for algo, cells in rows.items()}


def _sentence(cells: Mapping[str, Cell], start: Mapping[str, Cell]) -> str:
    def change(name: str) -> str:
        return f"{start[name].value:.2f} to {cells[name].value:.2f}"

    gold = cells["helpfulness/gold_reward"]
    parts = [f"gold reward {change('helpfulness/gold_reward')} ± {gold.half_interval:.2f}"]
    if "optimization/kl" in cells:
        parts[0] += f" at a KL of {cells['optimization/kl'].value:.2f}"
    parts.append(f"agreement with wrong opinions {change('sycophancy/agreement')}")
    if "diversity/entropy" in cells:
        parts.append(f"entropy {change('diversity/entropy')}")
    return f"{', '.join(parts)} {SOURCE}"


def page(algo: str) -> Path:
    return PAGES / f"{SHARED.get(algo, algo)}.md"


def written(text: str, sentence: str) -> str:
    """The page with the sentence in the place of the one that it had, or at its end."""
    if _SAID.search(text):
        return _SAID.sub(lambda _: BEGIN + sentence, text, count=1)
    return f"{text.rstrip()}\n\n{BEGIN}{sentence}.\n"


def main() -> None:
    for algo, sentence in sentences().items():
        if algo not in SHARED:
            page(algo).write_text(written(page(algo).read_text(encoding="utf-8"), sentence), encoding="utf-8")


if __name__ == "__main__":
    main()
