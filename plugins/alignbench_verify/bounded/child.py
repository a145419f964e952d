"""What runs in a worker's process: reads requests, answers them, and is killed by the system where one takes too much."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from alignbench import UserError

MIB = 1 << 20


def main(arguments: Sequence[str]) -> None:
    seconds, memory, modules = float(arguments[0]), int(arguments[1]), arguments[2:]
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints is no answer
    for module in modules:
        importlib.import_module(module)
    bound_memory(memory)
    answers.write(b"{}\n")
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        # The signal is left as it is: it ends the process, inside of C too, where no handler of Python's would run.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = answered(asked["function"], asked["request"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer).encode() + b"\n")


def answered(function: str, request: dict[str, object]) -> dict[str, object]:
    module, _, name = function.partition(":")
    try:
        return {"answer": getattr(importlib.import_module(module), name)(**request)}
    except UserError as error:  # what it checks by is at fault
        return {"fault": str(error)}
    except MemoryError:
        return {"answer": None}
    except Exception:  # a response that breaks its check has not passed it
        return {"answer": False}


def bound_memory(mib: int) -> None:
    """`mib` more than the process has now, libraries included."""
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + mib * MIB,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
