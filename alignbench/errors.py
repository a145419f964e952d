"""Errors that a user can act on: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class AlignbenchError(Exception):
    """Base of every error that is shown to the user as one line, without a traceback."""

    exit_code = 1


class UserError(AlignbenchError):
    """The request cannot be carried out as written: configuration, data, plugin or model."""

    exit_code = 2


class UnknownNameError(UserError):
    """A name that is none of the `choices`."""

    def __init__(self, message: str, choices: Sequence[str] = ()) -> None:  # pickled with the message alone
        super().__init__(message)
        self.choices = tuple(choices)


class NonFiniteError(AlignbenchError):
    """A reward, a loss or a gradient became NaN or infinite. Raised *before* the optimizer steps."""


_CLASS = re.compile(r"\b[A-Za-z]\w*(?:Error|Exception)\b(?: raised)?:?\s*")
_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (KeyError, "something that is needed is missing or unknown: {}"),
    (ArithmeticError, "a number that cannot be: {}"),
    ((TypeError, AttributeError), "a value of the wrong kind: {}"),
)


def without_class_names(text: str) -> str:
    """A library's words without the names of its errors' classes, which tell a user nothing."""
    return _CLASS.sub("", text)


def reason_of(error: BaseException) -> str:
    """What a library's error says of what it read, as part of a line for the user: what kind of fault it is where the words alone would
    not tell (`'x'`, of a KeyError), and no name of a class."""
    words = without_class_names(str(error)).strip()
    shape = next((shape for kind, shape in _KINDS if isinstance(error, kind) and " error for " not in words), "{}")
    return shape.format(words) if words else "it gives no reason"


def _by_value(choice: str) -> tuple[bool, float, str]:
    """Numbers first, 25 before 100."""
    number = re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", choice)
    return number is None, float(choice) if number else 0.0, choice


def unknown_name(kind: str, name: str, choices: Iterable[str], *, where: str = "") -> UserError:
    """The error for an unknown name: says where it stood, lists the choices and offers the nearest one."""
    known, name = sorted(choices, key=_by_value), str(name)  # a user may have written a number
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    place = f" in {where}" if where else ""
    return UnknownNameError(f"Unknown {kind} {name!r}{place}.{hint} Choices: {', '.join(known) or 'none'}.", known)
