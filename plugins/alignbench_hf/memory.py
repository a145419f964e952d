"""Memory that was freed but not given back, and settings that take less.

Batches of ever new widths leave holes in the C library's heap: on a CPU a run of a 135M model then holds a gigabyte
more than it uses, and grows. glibc gives whole free pages back when asked.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

PASSES_BETWEEN = 32
_MMAP_THRESHOLD, _LARGE = -3, 2**20  # M_MMAP_THRESHOLD of malloc.h; bytes


class FreedMemory:
    """Gives free pages back to the operating system where the C library can (glibc); elsewhere does nothing."""

    def __init__(self) -> None:
        self._trains, self._passes = False, 0

    def before_pass(self, *, trains: bool) -> None:
        """What passes of the other kind left, or the last few. Not before every pass: new pages take as long as a good part
        of one."""
        self._passes += 1
        if trains != self._trains or self._passes == PASSES_BETWEEN:
            self._trains, self._passes = trains, 0
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


def half(setting: str, now: int) -> str:
    """The setting at half of what it is."""
    return f"{setting}={max(now // 2, 1)}"


def give_back_at_once() -> None:
    """Has the C library give back what is large as soon as it is freed: layers that are put together and let go would leave holes as
    large as the model. It does no more than cost time where memory is not short."""
    if sys.platform == "linux" and (set_option := getattr(ctypes.CDLL(None), "mallopt", None)):
        set_option(_MMAP_THRESHOLD, _LARGE)
