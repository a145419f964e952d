"""Paths as people write them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from alignbench.bounds import shown
from alignbench.errors import UserError


def user_path(given: str | Path, option: str) -> Path:
    """A path in which `~` and `~somebody` stand for a home folder. `option`: where the user wrote it, for the error."""
    try:
        path = Path(given).expanduser()
    except RuntimeError:
        raise UserError(f"{option}={given}: there is no home folder {Path(given).parts[0]}.") from None
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # whoever only asks whether it exists would get this error as it is
            raise UserError(f"{option}={shown(given)}: too long for a path.") from None
    except ValueError:
        pass  # as with a null byte: there is no such file
    return path
