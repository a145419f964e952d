"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

from alignbench.errors import UserError


def user_path(given: str | Path, option: str) -> Path:
    """A path in which `~` and `~somebody` stand for a home folder. `option`: where the user wrote it, for the error."""
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise UserError(f"{option}={given}: there is no home folder {Path(given).parts[0]}.") from None
