"""How long the page takes to answer many people who rank at once.

    python benchmarks/page_load.py --people 50

Each thinks two seconds an item on average, far less than people do, and sends a draft and an answer. Prints the median and the 95th
percentile over all requests; the exit code is 1 where the latter is over 200 ms."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.page_kills import Person, Server, audit, make_project

LIMIT = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--think", type=float, default=2.0, help="seconds an item, on average")
    parser.add_argument("--arrive", type=float, default=5.0, help="seconds over which they come")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "rank", options.items, people=3)
        server, until = Server(Path(folder) / "runs"), threading.Event()
        persons = [Person(f"P{i}", server, random.Random(i), options.think) for i in range(options.people)]
        threads = [threading.Thread(target=person.work, args=(until,), daemon=True) for person in persons]
        try:
            for thread in threads:
                thread.start()
                time.sleep(options.arrive / options.people)
            time.sleep(options.seconds)
            until.set()
            for thread in threads:
                thread.join(30)
        finally:
            server.kill()
        faults = audit(project, persons)
    taken = [seconds for person in persons for seconds in person.seconds]
    p95 = statistics.quantiles(taken, n=20)[-1]
    print(
        f"{options.people} people, {options.items} items, {len(taken)} requests in {options.seconds:g} s: "
        f"median {1000 * statistics.median(taken):.0f} ms, p95 {1000 * p95:.0f} ms, longest {1000 * max(taken):.0f} ms"
    )
    for fault in faults:
        print(fault)
    return bool(faults) or p95 > LIMIT


if __name__ == "__main__":
    sys.exit(main())
