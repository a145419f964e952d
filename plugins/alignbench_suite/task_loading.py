"""Tasks of lm-eval by name: the suite's own, those in folders of the user's, lm-eval's. lm-eval is imported when one is loaded:
its own 14,000 tasks, which take ten seconds to list, only where one of them is named."""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench import UserError, pretrained, user_path
from alignbench_suite.tasks import FOLDER, PUBLIC
from alignbench_suite.tasks.files import content, found

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

INCLUDE = "eval.include_path"
_LISTED = 20


@dataclass(frozen=True)
class Sources:
    """Where tasks and their data are read from, beside lm-eval's own: a folder of evaluation data, and folders of tasks. `digest`
    is that of all that lies there, so that what was read once is read anew when it has changed."""

    path: str
    folders: tuple[Path, ...]
    digest: str


def sources(path: str = "", include_path: object = ()) -> Sources:
    """Raises UserError where a folder is none."""
    folders = _folders(include_path)
    return Sources(path, folders, f"{content(path)} {_content(folders)}")


@functools.cache
def load(names: tuple[str, ...], of: Sources) -> tuple[Task, ...]:
    """The tasks with their data, those of groups too, each once. Raises UserError for what does not exist, and for a task or its
    data that cannot be read."""
    own = _included(of)
    manager = _manager(names, of)
    for name in names:
        if name in PUBLIC and of.path:
            found(PUBLIC[name], of.path)
        if name not in manager.all_tasks:
            raise _unknown(name, manager.all_tasks, own)
    try:
        return tuple(manager.load(list(names))["tasks"].values())
    except UserError:
        raise
    except Exception as error:  # whatever a YAML file and the code that it names may raise
        reason = pretrained.one_line(error)[:300]
        if mine := [name for name in names if name in own]:
            raise UserError(f"{INCLUDE}: {', '.join(mine)} cannot be loaded from {own[mine[0]]} ({reason}).") from error
        if not isinstance(error, OSError | ImportError | ValueError):
            raise
        raise UserError(
            f"The data of {', '.join(names)} could not be had ({reason}): it comes from the hub. Fetch "
            "it where there is a network (Hugging Face's cache is used), or give the suite's own tasks a folder by eval.path."
        ) from error


@functools.cache
def task_manager(of: Sources, defaults: bool) -> TaskManager:
    from lm_eval.tasks import TaskManager

    folders: list[str | Path] = [str(FOLDER), *map(str, of.folders)]
    return TaskManager(include_path=folders, include_defaults=defaults, metadata={"path": of.path} if of.path else {})


def _manager(names: tuple[str, ...], of: Sources) -> TaskManager:
    own = task_manager(of, False)
    return own if all(name in own.all_tasks for name in names) else task_manager(of, True)


def _unknown(name: str, known: Sequence[str], own: dict[str, Path]) -> UserError:
    near = difflib.get_close_matches(name, known, n=5)
    brought = f" {INCLUDE} has {', '.join(list(own)[:_LISTED])}{', ...' if len(own) > _LISTED else ''}." if own else ""
    return UserError(
        f"eval.tasks: lm-eval has no task {name!r}. "
        + (f"Did you mean {', '.join(near)}?" if near else "`lm_eval ls tasks` lists them.")
        + brought
    )


def included(of: Sources) -> list[str]:
    """The names of the tasks and groups in the user's folders."""
    return list(_included(of))


@functools.cache
def _included(of: Sources) -> dict[str, Path]:
    """The tasks and groups that the user's folders define, each with its file. lm-eval passes over a file that it cannot read and
    over a name's second definition: both would be a question that was never asked."""
    names: dict[str, Path] = {}
    for folder in of.folders:
        before = len(names)
        for file in sorted(folder.rglob("*.yaml")):
            config = _yaml(file)
            name = config.get("group") or config.get("task")
            if not isinstance(name, str):
                continue  # what other files include
            if name in names:
                raise UserError(f"{INCLUDE}: {name} stands in {names[name]} and in {file}: give one another name.")
            if name.startswith("alignbench_"):
                raise UserError(
                    f"{INCLUDE}: {file} has the name {name}; alignbench_... are the suite's: choose another."
                )
            names[name] = file
        if len(names) == before:
            raise UserError(f"{INCLUDE}={folder} has no task: a file ending in .yaml with `task:` or `group:`.")
    return names


def _yaml(file: Path) -> dict[str, Any]:
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return dict(load_yaml(file, resolve_func=False, recursive=True))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{INCLUDE}: {file}{line}: no YAML ({error.problem or error.context}).") from error
    except Exception as error:  # an `include:` of a file that is not there, a text that is none
        raise UserError(f"{INCLUDE}: {file} cannot be read ({pretrained.one_line(error)[:200]}).") from error


def _folders(include_path: object) -> tuple[Path, ...]:
    given = [include_path] if isinstance(include_path, str) else include_path
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise UserError(f"{INCLUDE}={include_path!r}: give a folder, or a list of them: [first,second].")
    folders = []
    for one in filter(None, given):
        folder = user_path(one, INCLUDE).absolute()
        if not folder.is_dir():
            raise UserError(f"{INCLUDE}={one} is not a folder: give one with lm-eval's YAML tasks.")
        folders.append(folder)
    return tuple(dict.fromkeys(folders))


def _content(folders: Sequence[Path]) -> str:
    """A digest of every file in the folders: tasks, their code, their data."""
    found = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            parts = file.relative_to(folder).parts
            if file.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
                found.update("/".join(parts).encode(errors="surrogateescape") + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:24]
