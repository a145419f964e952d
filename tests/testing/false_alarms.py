"""Counts the checks that fail on components as they are, over many seeds: python tests/testing/false_alarms.py 20 ppo sft.

Without names: everything that is registered. The configs are checked once: no seed changes them."""

from __future__ import annotations

import sys
from collections import Counter

from alignbench.plugins import registry, resolve
from alignbench.testing import Status, checks_of
from alignbench.testing.checks import run_checks
from alignbench.testing.conformance import CONFIG_CHECKS


def main(seeds: int, names: list[str]) -> int:
    components = [resolve(name) for name in names] or list(registry().components.values())
    alarms = 0
    for component in components:
        counts: Counter[Status] = Counter()
        for seed in range(seeds):
            checks = [c for c in checks_of(component) if seed == 0 or c not in CONFIG_CHECKS]
            for result in run_checks(checks, component, seed):
                counts[result.status] += 1
                if result.status is Status.FAILED:
                    print(f"{component.name}, seed {seed}: {result.line()}")
        alarms += counts[Status.FAILED]
        made = counts[Status.OK] + counts[Status.FAILED]
        print(f"{component.kind.value}={component.name}: {counts[Status.FAILED]} of {made} checks", flush=True)
    print(f"{alarms} false alarms over {seeds} seeds")
    return int(alarms > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
