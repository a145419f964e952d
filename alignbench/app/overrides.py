"""Overrides as people write them: a home folder is expanded, and a value that Hydra's grammar does not take is refused with the quotes
that it needs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import OverrideParseException

from alignbench.errors import UserError
from alignbench.selection import one_line

_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'\n")
_NO_TABLE = re.compile(
    r"Error merging override (.*)\n(?:Cannot assign \w+ to Dict|Cannot merge DictConfig with ListConfig)"
)
_HOME = re.compile(r"(^|[,(\[]\s*)(~[^,()\[\]]*)")
"""Where a value begins: that of an option, of a sweep (`a,b` or `choice(a,b)`) or of a list."""
_OF_A_SHELL = '$`\\"!'
"""What a shell reads inside double quotes."""


def quoted(text: str) -> str:
    """As Hydra's grammar takes any text."""
    return str(QuotedString(text, Quote.single).with_quotes())


def expanded(overrides: Sequence[str]) -> list[str]:
    """With the home folder for `~`, which a shell leaves alone behind a `=` and Hydra's grammar refuses."""
    return [_expanded(override) for override in overrides]


def _expanded(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or key.startswith("-") or value.startswith("{") or set(value) & {"'", '"'}:
        return override
    return f"{key}={_HOME.sub(lambda found: found[1] + os.path.expanduser(found[2]), value)}"


def unread(error: Exception, text: str) -> UserError | None:
    """Why an override cannot be read as it was written, and how it can; None for any other error. `text`: all that it says."""
    if table := _NO_TABLE.search(text):
        key = table[1].partition("=")[0]
        return UserError(f"{one_line(table[1])}: it takes values by their names, each as {key}.<name>=<value>.")
    if isinstance(error, OverrideParseException):
        override, why = (
            error.override,
            "cannot be read as it stands: a value with spaces, commas, =, ~, (, or any other sign",
        )
    elif found := _AMBIGUOUS.search(text):
        override, why = (
            found[1],
            "has commas, which part a list, as in [a,b], or with --multirun the values of a sweep; a text",
        )
    else:
        return None
    key, equals, value = override.partition("=")
    if not equals:
        return UserError(f"{one_line(override)}: write it as key=value, see alignbench --help.")
    return UserError(
        one_line(f"{override} {why} needs quotes, and those need quotes of the shell: {_for_shell(key, value)}")
    )


def _for_shell(key: str, value: str) -> str:
    """To be typed: Hydra's quotes inside those of a shell."""
    argument = f"{key}={quoted(value)}"
    return shlex.quote(argument) if set(argument) & set(_OF_A_SHELL) else f'"{argument}"'
