"""A virtual environment with another version of TRL, and a process of it that is told what to do line by line."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

from alignbench import AlignbenchError, UserError, user_path

SERIES = "1.12"
"""The last minor version with a PPO trainer."""
OPTION = "algo.environment"
LOG = "log.txt"
WAIT = 5.0
"""Seconds that a process has to end by itself."""


def python_of(environment: str) -> Path:
    """Its interpreter. Raises UserError where there is none, with the line that makes it."""
    folder = user_path(environment, OPTION)
    for python in (folder / "bin" / "python", folder / "Scripts" / "python.exe"):
        if python.is_file():
            return python.absolute()
    raise UserError(f"{OPTION}={environment} has no Python with TRL {SERIES}: {recipe(environment)}")


def recipe(environment: str) -> str:
    """How it is made."""
    home, slash, rest = environment.partition("/") if environment.startswith("~") else ("", "", environment)
    folder = f"{home}{slash}{shlex.quote(rest)}" if rest else environment
    return f"make it by `python -m venv {folder} && {folder}/bin/pip install trl=={SERIES}.0 peft pandas`."


def only(device: torch.device) -> dict[str, str]:
    """The variable that leaves a process this GPU alone: it would take the first one."""
    if device.type != "cuda":
        return {}
    seen, index = os.environ.get("CUDA_VISIBLE_DEVICES"), device.index or 0
    return {"CUDA_VISIBLE_DEVICES": seen.split(",")[index] if seen else str(index)}


class Process:
    """`script` in that environment, on the files in `folder`. It is told what to do by a line on its standard input and answers with a line of
    JSON on its standard output; what it and its libraries print is in `folder`/log.txt. It ends when this object does."""

    def __init__(self, environment: str, script: Path, folder: Path, device: torch.device) -> None:
        self._log = folder / LOG
        # -I: what this process finds in PYTHONPATH and in the script's folder is not that environment's.
        command = [str(python_of(environment)), "-I", str(script), str(folder)]
        own = {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **only(device)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | own
            )
        weakref.finalize(self, _end, self._process)
        found = str(self._answer("it is loaded").get("trl"))
        if not found.startswith(f"{SERIES}."):
            raise UserError(f"{OPTION}={environment} has TRL {found}, and this needs {SERIES}: {recipe(environment)}")

    def ask(self, line: str) -> Mapping[str, Any]:
        """Its answer. Raises AlignbenchError, with the last line that it printed, where it has ended."""
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._process.stdin).write(f"{line}\n")
            _pipe(self._process.stdin).flush()
        return self._answer(line)

    def _answer(self, to: str) -> Mapping[str, Any]:
        for said in _pipe(self._process.stdout):
            with contextlib.suppress(ValueError):  # a library that prints while it is imported
                answer = json.loads(said)
                if isinstance(answer, dict):
                    return answer
        code, last = self._process.wait(), self._log.read_text(errors="replace").strip().splitlines()[-1:]
        ended = f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        why = f": {last[0]}" if last else "."
        raise AlignbenchError(f"TRL's own process {ended} before {to!r} was answered{why}")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "asked for"
    return pipe


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            _pipe(pipe).close()
    try:
        process.wait(WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
