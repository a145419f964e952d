"""Memory: what to do when there is too little, and what was freed but not given back.

Batches of ever new widths leave holes in the C library's heap: on a CPU a run of a 135M model then holds a gigabyte
more than it uses, and grows. glibc gives whole free pages back when asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Callable, Iterator

import torch

from alignbench import UserError

_TOO_LITTLE = ("not enough memory", "can't allocate memory", "out of memory")


def return_freed_memory() -> None:
    """Gives free pages back to the operating system where the C library can (glibc); elsewhere does nothing."""
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    if sys.platform != "linux":
        return lambda pad: None
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # another C library
        return lambda pad: None
    return trim


@contextlib.contextmanager
def within_memory(part: str, *ways: str) -> Iterator[None]:
    """Turns running out of memory into one line: at which part, and the settings by which it takes less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(words in str(error) for words in _TOO_LITTLE):
            raise
        raise UserError(f"Out of memory in {part}. Take less with {' or '.join(ways)}.") from error


def half(setting: str, now: int) -> str:
    """The setting at half of what it is."""
    return f"{setting}={max(now // 2, 1)}"
