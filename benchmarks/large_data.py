"""How long `data=preferences` takes to read a set of UltraFeedback's size, and how much memory.

    python benchmarks/large_data.py                   # 60,000 prompts with four rated responses, as Parquet
    python benchmarks/large_data.py --max-rows 2000   # the same file, of which few rows are kept
    python benchmarks/large_data.py --kind jsonl --rows 10000

The file is made anew from a seed, in a process of its own; what is printed is of the process that reads.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignbench import Seeds

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
ROWS_AT_ONCE = 1000


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows of UltraFeedback's schema: a prompt of about 500 letters, four responses of about 1,300, each with four ratings and
    their rationales of about 400."""
    draw = Seeds(0).child("large data").python("rows")
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    text = " ".join(draw.choices(words, k=1_000_000))

    def piece(about: int) -> str:
        start = draw.randrange(len(text) - 4 * about)
        return text[start : start + draw.randint(about // 4, 7 * about // 4)]

    def completion() -> dict[str, Any]:
        rated = {name: {"Rating": str(draw.randint(1, 5)), "Rationale": piece(400)} for name in ASPECTS}
        return {
            "model": "m", "response": piece(1300), "annotations": rated, "critique": piece(800), "principle": "p",
            "custom_system_prompt": piece(200), "overall_score": float(draw.randint(1, 10)), "fine-grained_score": 1.0,
        }  # fmt: skip

    for i in range(count):
        yield {"source": "s", "instruction": f"{i} {piece(500)}", "completions": [completion() for _ in range(4)]}


def make(path: Path, count: int) -> None:
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, held = None, []
    for i, row in enumerate(rows(count), start=1):
        held.append(row)
        if len(held) == ROWS_AT_ONCE or i == count:
            table = pa.Table.from_pylist(held)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            held = []
    if writer:
        writer.close()


def read(path: Path, max_rows: int) -> None:
    import alignbench_data.source as source
    from alignbench_data.config import PreferencesConfig

    before = peak()
    start, used = time.perf_counter(), time.process_time()
    data = source.PreferencesData(PreferencesConfig(path=str(path), max_rows=max_rows), seeds=Seeds(0))
    rankings = len(data.rankings())
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    print(
        f"{path.stat().st_size / 2**20:,.0f} MiB, {data.counts()['read']:,} rows read, {rankings:,} rankings kept: "
        f"{seconds:.1f} s ({cpu:.1f} s of CPU), peak memory {peak():.2f} GiB ({before:.2f} GiB before reading)"
    )


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--kind", choices=["parquet", "jsonl"], default="parquet")
    parser.add_argument("--max-rows", type=int, default=0)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make(given.make, given.rows)
    elif given.read:
        read(given.read, given.max_rows)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"large.{given.kind}"
            for step in ("--make", "--read"):
                options = ["--rows", str(given.rows), "--max-rows", str(given.max_rows)]
                subprocess.run([sys.executable, __file__, step, str(path), *options], check=True)


if __name__ == "__main__":
    main()
