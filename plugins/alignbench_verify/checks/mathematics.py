"""Equivalence of mathematical expressions, by the library math-verify. In a worker: sympy can take any time, and the library's own
limit uses a signal that the main thread alone can have."""

from __future__ import annotations

import logging

from math_verify import parse, verify

from alignbench import UserError

logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def passes(response: str, answer: str) -> bool:
    """What the response states last equals the reference's expression."""
    return bool(verify(_gold(answer), parse(response, parsing_timeout=None), timeout_seconds=None))


def inspect(answer: str) -> bool:
    """Raises UserError for a reference that is no expression."""
    _gold(answer)
    return True


def _gold(answer: str) -> list[object]:
    text = answer if "\\boxed" in answer or "$" in answer else f"\\boxed{{{answer}}}"
    found = parse(text, parsing_timeout=None)
    if all(isinstance(part, str) for part in found):
        raise UserError(f"the reference answer {answer[:80]!r} is no mathematical expression")
    return list(found)
