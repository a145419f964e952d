"""CPU seconds and peak memory of whole runs, as the operating system counts them.

    python benchmarks/main_job.py                              the embedded world
    python benchmarks/main_job.py experiment=hh_smollm2 data.path=<folder with the files of HH-RLHF>

Every argument is an override of the run. `--limit-seconds` and `--limit-gib` make the exit code 1 where the run needed more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

GIB = 2**30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides of the run")
    parser.add_argument("--limit-seconds", type=float, help="CPU seconds, user and system")
    parser.add_argument("--limit-gib", type=float, help="peak resident memory, GiB")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        # Without the cache: a stage that another run has made would be taken from there and cost nothing.
        command = [sys.executable, "-m", "alignbench", *arguments.overrides, "cache=false", f"results_dir={folder}"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            return code
        record = json.loads(next(Path(folder).glob("*/result.json")).read_text())

    # The run resets its own peak before it starts: getrusage would count what the parent held at the fork.
    seconds, peak = usage.ru_utime + usage.ru_stime, record["cost"]["peak_memory_bytes"] / GIB
    print("command      python -m alignbench", *arguments.overrides)
    print("hardware    ", record["identity"]["hardware"]["cpu"], "-", record["identity"]["hardware"]["cores"], "cores")
    for stage, wall in record["cost"]["seconds"].items():
        print(f"  {stage:<14} {wall:7.1f} s")
    print(f"CPU          {seconds:7.1f} s (user and system)")
    print(f"peak memory  {peak:7.2f} GiB")
    over = (arguments.limit_seconds and seconds > arguments.limit_seconds) or (
        arguments.limit_gib and peak > arguments.limit_gib
    )
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
