"""Counts the checks that fail on components as they are, over many seeds: python -m tests.testing.false_alarms 20 ppo sft.

Without names: everything that is registered, the loader of checkpoints on a small random one. The configs are checked once: no seed
changes them. What cannot be built here (data that only the hub has) is said."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from alignbench.plugins import Component, Kind, registry, resolve
from alignbench.testing import Status, checks_of, with_defaults
from alignbench.testing.checks import run_checks
from alignbench.testing.conformance import CONFIG_CHECKS
from tests.hf.test_conformance import LIMITS, SETTINGS, write_checkpoint


def main(seeds: int, names: list[str]) -> int:
    components = [resolve(name) for name in names] or list(registry().components.values())
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder))
        loaded = {"path": folder, **LIMITS, **SETTINGS["float32"]}
        return count(
            seeds, [with_defaults(c, loaded) if (c.kind, c.name) == (Kind.MODEL, "hf") else c for c in components]
        )


def count(seeds: int, components: Sequence[Component]) -> int:
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
