"""Paths as people write them."""

from __future__ import annotations

import argparse
import errno
import os
import re
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


def given_path(text: str) -> Path:
    """An option's value on a command line. Empty, as from a shell variable that is not set, it would be the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a path is missing")
    try:
        return reachable(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def reachable(text: str) -> Path:
    """The path, `~` expanded, whether or not something is there. Raises UserError where nobody could tell: `pathlib` would raise on every
    question."""
    try:
        named_so = not text.startswith("~") or os.path.lexists(text)
        path = Path(text) if named_so else Path(text).expanduser()
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        reason = "too long for a path" if error.errno == errno.ENAMETOOLONG else (error.strerror or str(error))
        raise UserError(f"{shown(text)}: {reason}.") from None
    except RuntimeError:
        raise UserError(f"{shown(text)}: there is no such home folder.") from None
    except ValueError:
        raise UserError(f"{shown(text)}: no path holds such a character.") from None
    return path


def is_setting(text: str) -> bool:
    """Whether this is KEY=VALUE and no path: what begins as a path does, and where something is, stays one."""
    return "=" in text and not text.startswith(("/", ".", "~")) and not os.path.lexists(text)


def check_there(given: str, option: str, *, hub: bool = False) -> None:
    """Raises UserError for a path where nothing is: for a config's `ready`, so that a typing error is found when the configuration is
    loaded, and not after an hour of training. `hub`: it may also be a hub id (owner/name)."""
    if (given and os.path.lexists(user_path(given, option))) or (
        hub and is_hub_id(given) and not given.lower().endswith(_OF_FILES)
    ):
        return
    other = ", and it is no hub id (owner/name)" if hub else ""
    raise UserError(f"{option}={given}: no such file or folder{other}.")


def check_may_be_folder(given: str, option: str) -> None:
    """Raises UserError for a folder's path in which a part is a file. Whether somebody may write there is not asked."""
    path = user_path(given, option).absolute()
    there = next(part for part in (path, *path.parents) if os.path.lexists(part))
    if not there.is_dir():
        raise UserError(f"{option}={given}: {there} is a file, not a folder; choose another.")


_OF_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".yaml", ".gz", ".zst", ".zip")
"""How a file's name ends, and no repository's: a mistyped file must not pass for a hub id."""
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?", re.ASCII)


def is_hub_id(text: str) -> bool:
    """Whether this may be a repository's name on the hub, owner/name or name alone."""
    return bool(_HUB_ID.fullmatch(text))
