"""How much a run says while it goes on, and durations as people say them."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from alignbench.errors import UserError


class Verbosity(enum.Enum):
    """QUIET: errors, warnings and the table alone. VERBOSE: every update a line, and in a sweep a table after each run."""

    QUIET = "--quiet"
    NORMAL = ""
    VERBOSE = "--verbose"


def chosen(arguments: Sequence[str]) -> tuple[Verbosity, list[str]]:
    """What a command line says of it, and the rest of the command line. It is no key of the configuration: it changes no result."""
    said = {choice for choice in Verbosity if choice.value in arguments}
    if len(said) > 1:
        raise UserError("--quiet and --verbose exclude each other: give one of them.")
    return next(iter(said), Verbosity.NORMAL), [a for a in arguments if a not in {choice.value for choice in said}]


def about(seconds: float) -> str:
    """To the two digits that an estimate has at most: "about 40 seconds", "about 6 minutes", "about 2.5 hours"."""
    if seconds < 55:
        count, unit = max(round(seconds / 5) * 5, 5), "second"
    elif seconds < 100 * 60:
        count, unit = max(round(seconds / 60), 1), "minute"
    else:
        hours = round(seconds / 1800) / 2
        return f"about {hours:g} hours" if hours < 48 else f"about {round(hours / 24)} days"
    return f"about {count} {unit}{'' if count == 1 else 's'}"
