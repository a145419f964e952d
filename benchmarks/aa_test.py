"""How often `alignbench compare` calls noise a difference, and how often it finds a difference that is there.

    python -m alignbench -m seed=range(20) results_dir=<folder>
    python benchmarks/aa_test.py <folder>

takes the runs of one configuration and draws pairs of disjoint sets of their seeds: two rows that differ in nothing but chance. In one
comparison 5% of them should differ at p < 5%, and after Holm's correction at most 5% of tables should hold a difference. Then
every example of one side is moved by twice the metric's half-interval, and that should be found. The draws share seeds: with few seeds
the shares are themselves uncertain. The exit code is 1 where a share is outside its limits.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from alignbench.errors import AlignbenchError
from alignbench.results.compared.examples import Examples, read_examples
from alignbench.results.compared.paired import Difference, differences
from alignbench.results.compared.table import Table, build_table, make_row
from alignbench.results.disk.runs import StoredRun, find_runs

A, B = ("a",), ("b",)
FALSE_ALARMS = (0.02, 0.08)
POWER = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, or folders of them, of one configuration")
    parser.add_argument("--seeds", type=int, help="of each side (default: 5, or half of what there is)")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of seed sets to draw (default: %(default)s)")
    arguments = parser.parse_args()

    try:
        found = build_table(*find_runs(arguments.runs))
    except AlignbenchError as error:
        parser.error(str(error))
    rows = [row for row in found.rows if not row.baseline]
    if len(rows) != 1:
        parser.error(f"these are {len(rows)} configurations: {', '.join(' '.join(row.label) for row in rows)}")
    runs = rows[0].runs
    size = arguments.seeds or min(5, len(runs) // 2)
    if size < 2 or 2 * size > len(runs):
        parser.error(f"{len(runs)} seeds give no two sets of {size}")
    examples = read_examples(runs)
    pairs = list(_pairs(runs, size, arguments.pairs))

    null = [_compared(found, pair, examples) for pair in pairs]
    halves: dict[str, list[float]] = defaultdict(list)
    for table in null:
        for d in table:
            halves[d.metric].append((d.high - d.low) / 2)
    effects = {metric: 2 * float(np.median(half)) for metric, half in halves.items()}
    planted = [_compared(found, pair, _moved(examples, pair, effects)) for pair in pairs]

    print(f"{' '.join(rows[0].label)}: {len(runs)} seeds, {len(pairs)} pairs of {size} against {size}\n")
    print(f"{'metric':<32} {'p < 5%':>8} {'planted':>9} {'found':>8}")
    alarms, power = _shares(null), _shares(planted)
    for metric, alarm in alarms.items():
        print(f"{metric:<32} {alarm:8.1%} {effects[metric]:9.3f} {power[metric]:8.1%}")
    alarm, least = float(np.mean([*alarms.values()])), min(power[metric] for metric in alarms if effects[metric])
    print(f"\nfalse alarms, mean over metrics   {alarm:.1%} (limits {FALSE_ALARMS[0]:.0%} to {FALSE_ALARMS[1]:.0%})")
    print(f"tables with one after Holm        {np.mean([any(d.significant for d in table) for table in null]):.1%}")
    print(f"planted effects found, at least   {least:.1%} (limit {POWER:.0%})")
    return 0 if FALSE_ALARMS[0] <= alarm <= FALSE_ALARMS[1] and least > POWER else 1


def _pairs(runs: tuple[StoredRun, ...], size: int, count: int) -> Iterator[tuple[list[StoredRun], list[StoredRun]]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        order = rng.permutation(len(runs))
        yield [runs[i] for i in order[:size]], [runs[i] for i in order[size : 2 * size]]


def _compared(
    found: Table, pair: tuple[list[StoredRun], list[StoredRun]], examples: Examples
) -> tuple[Difference, ...]:
    rows = (make_row(pair[0], A), make_row(pair[1], B))
    return differences(Table(rows, found.metrics), "b", examples, primary=list(found.metrics))


def _moved(examples: Examples, pair: tuple[list[StoredRun], list[StoredRun]], effects: dict[str, float]) -> Examples:
    moved = {}
    for metric, scores in examples.scores.items():
        values = scores.values.copy()
        values[scores.of(pair[0])] += effects.get(metric, 0.0)
        moved[metric] = replace(scores, values=values)
    return replace(examples, scores=moved)


def _shares(tables: list[tuple[Difference, ...]]) -> dict[str, float]:
    """Of each metric, how often it differs at p < 5% in a comparison by itself."""
    found: dict[str, list[bool]] = defaultdict(list)
    for table in tables:
        for d in table:
            found[d.metric].append(d.p_value < 0.05)
    return {metric: float(np.mean(hits)) for metric, hits in found.items()}


if __name__ == "__main__":
    sys.exit(main())
