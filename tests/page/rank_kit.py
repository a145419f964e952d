"""Projects to rank in, and people who do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from alignbench.page.rank.items import Item
from alignbench.page.rank.store import Project, Settings
from alignbench.page.server import create_app
from alignbench.page.settings import PageSettings
from alignbench.records import Message

HOME = "http://127.0.0.1:8400"
_numbers = itertools.count()


def item(number: int, responses: Sequence[str] = ("red", "green", "blue"), *, gold: Sequence[int] = ()) -> Item:
    return Item(f"p{number}", (Message("user", f"Question {number}?"),), tuple(responses), gold=tuple(gold))


def project(tmp_path: Path, items: Sequence[Item], name: str = "first", **settings: Any) -> Project:
    made = Project.create(tmp_path / "rank" / name, Settings(**settings))
    made.add(items)
    return made


def settings(tmp_path: Path, token: str = "", host: str = "127.0.0.1") -> PageSettings:
    return PageSettings(tmp_path / "runs", token=token, host=host)


def action_id() -> str:
    return f"{next(_numbers):032d}"


class Visitor:
    """A browser without a window: it knows the page's key."""

    def __init__(self, tmp_path: Path, **given: Any) -> None:
        self.results = tmp_path / "runs"
        self.http = TestClient(
            create_app(settings(tmp_path, **given)),
            base_url=HOME,
            follow_redirects=False,
            raise_server_exceptions=False,
        )

    def post(self, path: str, body: Any, *, session: str = "/session") -> Any:
        key = self.http.get(session).json()["key"]
        headers = {"origin": HOME, "x-alignbench-change": key}
        content = (
            body if isinstance(body, (bytes, str)) else json.dumps(body)
        )  # ASCII, as a browser escapes half a pair
        return self.http.post(path, content=content, headers=headers)


class Person:
    """Somebody who ranks over HTTP."""

    def __init__(self, visitor: Visitor, name: str, project: str = "first") -> None:
        self.visitor, self.base = visitor, f"/rank/{project}/as/{name}"

    def state(self) -> dict[str, Any]:
        answer = self.visitor.http.get(f"{self.base}/state")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def act(self, kind: str, **body: Any) -> Any:
        return self.visitor.post(f"{self.base}/action", {"id": action_id(), "kind": kind, **body})

    def answer(self, ranks: Sequence[int], **more: Any) -> dict[str, Any]:
        """The item before them, ranked in the order shown."""
        done = self.act("answer", item=self.state()["item"]["number"], ranks=list(ranks), **more)
        assert done.status_code == 200, done.text
        return dict(done.json())
