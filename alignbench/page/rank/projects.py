"""The folder of projects, and the links by which people come in who have no access to the rest of the page."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from pathlib import Path

from alignbench.errors import UserError
from alignbench.page.rank.items import annotator_name
from alignbench.page.rank.store import FILE, Annotator, Project

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}\Z")


def project_folder(projects: Path, name: str) -> Path:
    """Raises UserError for a name that could be another path."""
    if not _NAME.match(name):
        raise UserError(f"{name[:70]!a} is no project's name: use letters, digits, - and _, at most 64.")
    return projects / name


class Projects:
    """Projects by name, each opened once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._open = folder, dict[str, Project]()
        self._lock = threading.Lock()

    def get(self, name: str) -> Project:
        """Raises UserError where there is none."""
        folder = project_folder(self._folder, name)
        with self._lock:
            if name in self._open and not (folder / FILE).is_file():
                self._open.pop(name).close()
            if name not in self._open:
                self._open[name] = Project(folder)
            return self._open[name]

    def all(self) -> list[Project]:
        if not self._folder.is_dir():
            return []
        names = sorted(path.parent.name for path in self._folder.glob(f"*/{FILE}") if _NAME.match(path.parent.name))
        return [self.get(name) for name in names]

    def by_token(self, token: str) -> tuple[Project, Annotator] | None:
        """Whose link it is. Links are kept as hashes alone: who reads the file cannot come in by it."""
        for project in self.all():
            if annotator := project.by_token(token_digest(token)):
                return project, annotator
        return None


def token_digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def new_link(project: Project, name: str) -> str:
    """The path of a link for this person; an earlier one of theirs no longer opens."""
    token = secrets.token_urlsafe(32)
    project.let_in(project.annotator(annotator_name(name)), token_digest(token))
    return f"/annotate/{token}"
