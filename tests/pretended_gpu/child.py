"""What runs on the pretended GPU, all of it in one process: python -m tests.pretended_gpu.child FILE [NAME ...]

Work is done on both devices, counted on the GPU, and done again with each fault. What came of it is written to FILE."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any
from unittest import mock

import torch
import transformers

from tests.pretended_gpu.counts import counts, over
from tests.pretended_gpu.device import GPU, PretendedGpu, pretended_gpu
from tests.pretended_gpu.faults import FAULTS, Fault
from tests.pretended_gpu.work import Work, every_work


def attempt(act: Callable[[], Any]) -> dict[str, Any]:
    """What it gave, or the error and the last line of this project on its way."""
    try:
        return {"found": act(), "error": ""}
    except Exception as error:
        own = [
            f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__) if "/alignbench" in f.filename
        ]
        return {
            "found": {},
            "error": f"{type(error).__name__}: {error} (at {own[-1] if own else 'no line of alignbench'})",
        }


def planted(fault: Fault, works: Mapping[str, Work], gpu: PretendedGpu) -> str:
    """The error, or what is over its ceiling."""
    with mock.patch(fault.target, fault.change(resolve_name(fault.target))):
        if fault.work:
            return str(attempt(lambda: works[fault.work](GPU))["error"])
        return "; ".join(over(counts(gpu)))


def main(path: str, names: list[str]) -> None:
    os.environ.pop("LD_PRELOAD", None)  # git, which a run asks for its commit, needs no torch
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    works = every_work()
    chosen = {name: work for name, work in works.items() if not names or name in names}
    cpu = {name: attempt(lambda work=work: dict(work(torch.device("cpu")))) for name, work in chosen.items()}
    with pretended_gpu() as gpu:
        ours = {name: attempt(lambda work=work: dict(work(GPU))) for name, work in chosen.items()}
        found = {"cpu": cpu, "gpu": ours, "counts": counts(gpu)}
        found["faults"] = {f.name: planted(f, works, gpu) for f in FAULTS if not names or f.name in names}
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
    os._exit(
        0
    )  # torch joins no thread of a device that it does not know: to end in order would now and then end it by abort()
