"""Seconds an update with a judge that takes its time, scored in turn and ahead (`algo.overlap`).

    OMP_NUM_THREADS=1 python benchmarks/overlap.py --milliseconds 50

Runs of the embedded world with `reward=judge`, by turns in each way, against an endpoint on this machine that waits so long before each
answer and rates an answer by how many words it has. Further arguments are overrides of every run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Judge(BaseHTTPRequestHandler):
    """A chat completion after a pause."""

    seconds = 0.0

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        time.sleep(self.seconds)
        text = f"Rating: {1 + len(asked.split()) % 10}"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], "usage": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def run(url: str, overlap: int, overrides: list[str]) -> float:
    """Seconds of an update. The SFT model is made once, and kept."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            "reward=judge", "reward.model=stub", f"reward.url={url}", "reward.key_variable=''", "reward.cache=false",
            f"algo.overlap={overlap}", "eval=quick", "eval.frontier_samples=0",
            "algo.sampler_gap_limit=0",  # what is learnt does not matter here
            f"results_dir={folder}",
        ]  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "alignbench", *settings, *overrides], check=True, stdout=subprocess.DEVNULL
        )
        (directory,) = Path(folder).glob("*-s*")
        seconds = json.loads((directory / "result.json").read_text())["cost"]["seconds"]
        stages = [json.loads(line)["stage"] for line in (directory / "train.jsonl").read_text().splitlines()]
    return float(seconds[stages[-1]]) / stages.count(stages[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides of every run")
    parser.add_argument("--milliseconds", type=float, default=50, help="what the judge waits before each answer")
    parser.add_argument("--times", type=int, default=3, help="runs of each kind")
    arguments = parser.parse_args()

    Judge.seconds = arguments.milliseconds / 1000
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    found: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(arguments.times):
        for overlap in found:
            found[overlap].append(run(url, overlap, arguments.overrides))
    print(f"judge: {arguments.milliseconds:g} ms an answer; load {os.getloadavg()[0]:.1f}")
    for overlap, seconds in found.items():
        told = ", ".join(f"{one:.2f}" for one in seconds)
        print(f"algo.overlap={overlap}  {statistics.median(seconds):6.2f} s an update (median of {told})")
    print(f"ratio  {statistics.median(found[0]) / statistics.median(found[1]):.2f}")


if __name__ == "__main__":
    main()
