"""`alignbench check`: the conformance kit at the command line. Nothing heavy is imported before there is work to do."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence

from alignbench.plugins import Component, Kind, registry, resolve

DESCRIPTION = "Holds components to their contracts. Without a name: lists them."


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where every check of every component holds, else 1."""
    parser = argparse.ArgumentParser("alignbench check", description=DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="NAME", help="ppo, or kind=name where several kinds have the name")
    parser.add_argument("--seed", type=int, default=0, help="of the world that they are checked in (default: 0)")
    chosen = parser.parse_args(arguments)
    if not chosen.names:
        for kind in Kind:
            print(f"{kind.value}: {', '.join(component.name for component in registry().of(kind))}")
        return 0
    components = [resolve(name) for name in chosen.names]
    return max(report(component, chosen.seed) for component in components)


def report(component: Component, seed: int) -> int:
    """Prints one line for each check and a closing count; returns 1 where one failed."""
    from alignbench.testing import Status, check

    name = f"{component.kind.value}={component.name}"
    print(f"{name} ({component.distribution} {component.version}), seed {seed}")
    start = time.perf_counter()
    counts: Counter[Status] = Counter()
    for result in check(component, seed=seed):
        counts[result.status] += 1
        print(f"  {result.line()}", flush=True)
    kept, failed, none = (counts[status] for status in (Status.OK, Status.FAILED, Status.NOT_APPLICABLE))
    print(f"{name}: {kept} ok, {failed} failed, {none} not applicable, in {time.perf_counter() - start:.1f} s")
    return int(failed > 0)
