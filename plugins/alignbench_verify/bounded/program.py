"""A Python program of a model's, in a sandbox: Linux's own limits, and seccomp."""

from __future__ import annotations

import base64
import json
import math
import secrets
import tempfile
from pathlib import Path

from alignbench import UserError
from alignbench_verify.bounded import process

_SCRIPT = Path(__file__).with_name("sandbox.py")
_RAN = "shut in: "


def passes(program: str, tests: str, *, cpu_seconds: float, memory: int) -> bool | None:
    """Whether `tests` end without an error after `program`. None where it took too much and was ended.

    -I -S: no site-packages, no user's files, no environment."""
    limits = {"cpu": math.ceil(cpu_seconds), "memory": memory}
    # Written after the tests have run, so that leaving early is no pass. No secret: a program that looks for it in its
    # interpreter's frames finds it.
    token = secrets.token_hex(16)
    asked = {"limits": limits, "program": program, "tests": tests, "token": token}
    seconds = process.SLACK * cpu_seconds + 1
    with tempfile.TemporaryDirectory() as folder:
        child = process.start(["-I", "-S", str(_SCRIPT)], env={"LC_ALL": "C.UTF-8"}, cwd=folder)
        try:
            line = base64.b64encode(json.dumps(asked).encode("ascii")) + b"\n"
            sent = process.send(child, line, seconds=seconds)
            told = process.receive(child, seconds=seconds) if sent else None
        finally:
            process.end(child)
    if told is None:
        return None
    found = told.decode("ascii", "replace").strip()
    if found.startswith("unsafe "):  # at the line's beginning, which is written before the program runs
        raise UserError(
            f"A program of a model's cannot be shut in on this machine ({found[7:200]}), and is not run without: the check "
            "`python` needs Linux with seccomp on x86-64 or arm64."
        )
    return None if found == _RAN + "too much" else found == _RAN + token


def check_available() -> None:
    """Raises UserError where this machine has no sandbox."""
    passes("", "", cpu_seconds=2.0, memory=512)
