"""How many planted faults the kit catches: python tests/testing/share_caught.py [MODULE [COMPONENT ...]].

MODULE holds a tuple of faults (default: tests.testing.unseen). Each is planted, and every check of its component is made
until one fails. Prints which one that is, or "missed", and the share by kind at the end."""

from __future__ import annotations

import importlib
import logging
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from alignbench.plugins import Component
from alignbench.testing import Status, checks_of
from alignbench.testing.checks import run_checks
from tests.testing.faults import Fault, planted


def faults_of(module: str) -> tuple[Fault, ...]:
    found: tuple[Fault, ...] = next(
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, tuple) and value and isinstance(value[0], Fault)
    )
    return found


def caught(component: Component) -> tuple[str, str]:
    """The first check that fails and what it says, empty where none does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for result in run_checks(checks_of(component), component):
            if result.status is Status.FAILED:
                return result.check.name, result.detail
    return "", ""


def main(module: str, only: list[str]) -> None:
    logging.disable(logging.WARNING)
    found, all_of = Counter[str](), Counter[str]()
    start = time.process_time()
    for fault in faults_of(module):
        if only and fault.component not in only:
            continue
        kind = fault.component.partition("=")[0]
        began = time.process_time()
        check, detail = caught(planted(fault))
        all_of[kind] += 1
        found[kind] += bool(check)
        took = time.process_time() - began
        print(f"{fault.component}: {fault.name}: {check or 'missed'} ({took:.1f} s) {detail[:150]}", flush=True)
    for kind, count in all_of.items():
        print(f"{kind}: {found[kind]} of {count} ({found[kind] / count:.0%})")
    total, every = sum(found.values()), sum(all_of.values())
    print(f"all: {total} of {every} ({total / every:.0%}), in {time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests.testing.unseen", sys.argv[2:])
