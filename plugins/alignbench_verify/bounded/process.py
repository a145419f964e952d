"""A child process: started in a group of its own, read with a deadline, ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

SLACK = 5
"""How many times its CPU time a check may take by the clock: other work may share the processor."""


def start(arguments: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None) -> subprocess.Popen[bytes]:
    """This Python with `arguments`, in a session of its own; what it prints beside the answers goes nowhere."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and its whole group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def send(process: subprocess.Popen[bytes], data: bytes, *, seconds: float) -> bool:
    """Writes all of `data`; False where the process has ended, or has not read it in time."""
    assert process.stdin is not None, "started with a pipe"
    pipe, deadline = process.stdin.fileno(), time.monotonic() + seconds
    os.set_blocking(pipe, False)
    view = memoryview(data)
    while view:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([], [pipe], [], left)[1]:
            return False
        try:
            view = view[os.write(pipe, view) :]
        except BlockingIOError:
            continue
        except OSError:
            return False
    return True


def receive(process: subprocess.Popen[bytes], *, seconds: float, limit: int = 1 << 16) -> bytes | None:
    """A line of at most `limit` bytes; None where the process ended before it, or the time did."""
    assert process.stdout is not None, "started with a pipe"
    pipe, deadline, found = process.stdout.fileno(), time.monotonic() + seconds, b""
    while not found.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or len(found) > limit or not select.select([pipe], [], [], left)[0]:
            return None
        piece = os.read(pipe, limit)
        if not piece:
            return None
        found += piece
    return found
