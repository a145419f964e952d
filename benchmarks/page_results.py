"""The results explorer on a folder of many runs: seconds until a new server has its first table, and until it answers what people do then.

    python benchmarks/page_results.py                 10,000 run directories, each with its SFT model's row, of 3,336 configurations
    python benchmarks/page_results.py --seeds 500     of 20 configurations
    python benchmarks/page_results.py --keep DIR      made once, measured again

The runs are those of `many_runs.py`. A few of them are given what a run leaves behind beside its record: training curves, responses
and the scores of examples, so that plots, differences and responses have something to read. `first table`: from the question
to the answer of a server that has just started, with the folder's index there; `start`: until it answers at all. Others are the median and the slowest of several, each asked anew with
another choice, so that nothing is answered from memory alone. CPU: of the server, which is what counts on a busy machine. `--limit-first` and `--limit-later` make the exit code 1 where it took
longer.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from many_runs import COEFFICIENTS, make_runs

from alignbench import ExampleScore, Generation, Message, Prompt
from alignbench.results.compared.table import build_table
from alignbench.results.disk.directory import BASELINE, RunDirectory
from alignbench.results.disk.index import SETTLED_NS
from alignbench.results.disk.runs import find_runs

SERVER = (
    "import sys, uvicorn; from pathlib import Path; from alignbench.page.server import create_app; "
    "from alignbench.page.settings import PageSettings; "
    "uvicorn.run(create_app(PageSettings(Path(sys.argv[1]))), port=int(sys.argv[2]), log_level='error')"
)
METRICS = ("helpfulness/gold_reward", "sycophancy/agreement", "diversity/entropy", "optimization/kl")
PROMPTS, RESPONSES, UPDATES = 1800, 4, 60
FULL_RUNS = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="run directories (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of each configuration (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the runs here, or measure those that are here")
    parser.add_argument("--port", type=int, default=8499)
    parser.add_argument("--limit-first", type=float, help="seconds to the first table")
    parser.add_argument("--limit-later", type=float, help="seconds of the slowest kind of later action, its median")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        if not folder.is_dir() or not any(folder.iterdir()):
            each = max(1, arguments.runs // (arguments.seeds * len(COEFFICIENTS)))
            values = [round(0.01 * (k + 1), 2) for k in range(each)]
            make_runs(folder, arguments.runs, dict.fromkeys(COEFFICIENTS, values))
        full = fill(folder)
        find_runs([folder])  # the index
        time.sleep(SETTLED_NS / 1e9)
        start = time.perf_counter()
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), str(arguments.port)])
        try:
            home = httpx.Client(base_url=f"http://127.0.0.1:{arguments.port}", timeout=120)
            process = psutil.Process(server.pid)
            answered(home, start)
            print(f"{'start':<28} {time.perf_counter() - start:8.2f} s wall, {cpu(process):.2f} s CPU")
            start, before = time.perf_counter(), cpu(process)
            home.get("/results/table").raise_for_status()
            first = time.perf_counter() - start
            print(
                f"{'first table':<28} {first:8.2f} s wall, {cpu(process) - before:.2f} s CPU, {process.memory_info().rss / 2**30:.2f} GiB"
            )
            worst = measure(home, full, process)
        finally:
            server.terminate()
            server.wait()
    slow = (arguments.limit_first and first > arguments.limit_first) or (
        arguments.limit_later and worst > arguments.limit_later
    )
    return 1 if slow else 0


def fill(folder: Path) -> list[Path]:
    """The runs that have everything: of the first configurations that finished, so many."""
    rows = [row for row in build_table(*find_runs([folder])).rows if not row.baseline]
    paths = [run.path for row in rows[:FULL_RUNS] for run in row.runs][:FULL_RUNS]
    for i, path in enumerate(paths):
        if (path / "train.jsonl").exists():
            continue
        rng = random.Random(i)
        for directory in (RunDirectory(path), RunDirectory(path / BASELINE)):
            directory.write_generations(generations(rng))
            directory.write_examples(
                [ExampleScore(m, f"prompt-{k}", rng.random()) for m in METRICS for k in range(PROMPTS)]
            )
        for update in range(1, UPDATES + 1):
            figures = {name: rng.random() for name in ("reward", "kl", "entropy", "length", "loss")}
            RunDirectory(path).append_training(path.name.split("-")[2], update, figures)
    return paths


def generations(rng: random.Random) -> Iterator[Generation]:
    words = ("the", "river", "of", "kessa", "is", "green", "yes", "i", "think", "it")
    for k in range(PROMPTS):
        prompt = Prompt(f"prompt-{k}", (Message("user", f"what is the river of town {k} ?"),))
        for index in range(RESPONSES):
            text = " ".join(rng.choices(words, k=12))
            yield Generation(prompt, index, text, 12, True, -1.0, -2.0, 0.5, rng.random(), None)


def answered(home: httpx.Client, start: float) -> None:
    while time.perf_counter() - start < 120:
        try:
            home.get("/static/dom.js").raise_for_status()
            return
        except httpx.ConnectError:
            time.sleep(0.02)
    sys.exit("the server did not start")


def cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def measure(home: httpx.Client, full: list[Path], process: psutil.Process) -> float:
    """Prints each kind of action; returns the slowest median."""
    table = home.get("/results/table").json()
    rows = [row["name"] for row in table["rows"] if not row["baseline"]]
    metrics = [metric["name"] for metric in table["metrics"]]
    runs = [path.name for path in full]
    kinds = {
        "sort": ("table", [{"sort": f"-{metric}"} for metric in metrics]),
        "choose rows": ("table", [{"row": rows[i : i + 5]} for i in range(8)]),
        "choose metrics": ("table", [{"metric": metrics[i : i + 3]} for i in range(8)]),
        "only one algorithm": ("table", [{"only": f"algo={name}"} for name in table["facets"]["algo"]]),
        "another baseline": ("table", [{"baseline": row} for row in rows[:8]]),
        "look for changes": ("state", [{}] * 8),
        "list of runs": ("runs", [{"page": i} for i in range(1, 8)]),
        "search in runs": ("runs", [{"q": f"s{i}"} for i in range(8)]),
        "differences of 5 rows": ("differences", [{"row": rows[i : i + 5]} for i in range(8)]),
        "plot: frontier of 5 rows": ("plot", [{"plot": "frontier", "row": rows[i : i + 5]} for i in range(8)]),
        "plot: training of 5 rows": ("plot", [{"plot": "training", "row": rows[i : i + 5]} for i in range(8)]),
        "training curves of 2 runs": ("training", [{"run": runs[i : i + 2]} for i in range(6)]),
        "settings of 2 runs": ("settings", [{"run": runs[i : i + 2]} for i in range(6)]),
        "responses, first of a run": ("responses", [{"run": [name, f"{name}/{BASELINE}"]} for name in runs]),
        "responses, another page": ("responses", [{"run": runs[:2], "page": i} for i in range(2, 8)]),
        "responses, search": ("responses", [{"run": runs[:4], "q": f"town {i}"} for i in range(10, 18)]),
    }
    home.get(
        "/results/plot", params={"plot": "cost", "row": rows[:2]}
    )  # matplotlib is imported once in a server's life
    worst = 0.0
    print(f"{'':<28} {'median':>8} {'slowest':>8} {'CPU':>8}")
    for name, (question, asked) in kinds.items():
        taken, before = [], cpu(process)
        for parameters in asked:
            start = time.perf_counter()
            home.get(f"/results/{question}", params=parameters).raise_for_status()
            taken.append(time.perf_counter() - start)
        worst = max(worst, statistics.median(taken))
        each = (cpu(process) - before) / len(asked)
        print(f"{name:<28} {1000 * statistics.median(taken):5.0f} ms {1000 * max(taken):5.0f} ms {1000 * each:5.0f} ms")
    return worst


if __name__ == "__main__":
    sys.exit(main())
