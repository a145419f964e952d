"""Unit tests of a Python function: which part of a response is the function."""

from __future__ import annotations

import re

from alignbench import UserError

_FENCE = re.compile(r"^```.*$", re.MULTILINE)


def source(response: str) -> str:
    """The code of a response: of its fenced blocks the last that is closed, or all of it."""
    fences = list(_FENCE.finditer(response))
    if len(fences) < 2:
        return response
    opening = fences[len(fences) // 2 * 2 - 2]
    return response[opening.end() + 1 : fences[len(fences) // 2 * 2 - 1].start()]


def inspect(tests: str) -> bool:
    """Raises UserError for tests that are no Python."""
    try:
        compile(tests, "<tests>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"the tests {tests[:60]!r} are no Python: {error}") from None
    return True
