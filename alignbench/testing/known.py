"""What a component's author knows of it (`contracts.known`): found, and made ready to be checked against."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from alignbench.contracts.known import Known
from alignbench.errors import UserError
from alignbench.plugins import Component, registry
from alignbench.selection import with_defaults
from alignbench.testing.checks import NotApplicable

Reply = Callable[[Sequence[tuple[str, str]]], str]


def known(component: Component) -> tuple[Known, ...]:
    """All that its author has written down; the class names the function as package.module:function."""
    name = getattr(component.load(), "known", "")
    if not name:
        return ()
    module, _, function = name.partition(":")
    found: tuple[Known, ...] = tuple(getattr(importlib.import_module(module), function)())
    return found


def stated(component: Component, what: str) -> list[Known]:
    """What is known of that kind. Raises NotApplicable where nothing is."""
    if not (found := [one for one in known(component) if getattr(one, what)]):
        raise NotApplicable(f"its author states no {what} (contracts.known)")
    return found


def usable(component: Component) -> Component:
    """With defaults that can be built: its own, or the first ones that are known."""
    for one in known(component):
        with contextlib.suppress(UserError):
            return with_defaults(component, _options(one))
    return component


def with_settings(component: Component, one: Known) -> Component:
    """The component with these options, for which something is stated: beside them, its author's own defaults hold, and not those that
    it is checked with."""
    with contextlib.suppress(UserError):  # it is of no installed package
        own = registry().get(component.kind, component.name).config
        if issubclass(component.config, own):
            component = dataclasses.replace(component, config=own)
    return with_defaults(component, _options(one))


def _options(one: Known) -> dict[str, Any]:
    """The folder and the endpoint that they name stay for as long as the process does."""
    folder = _folder(tuple(sorted(one.files.items()))) if one.files else ""
    url = _endpoint(one.reply) if one.reply else ""
    return {k: _filled(v, folder, url) for k, v in one.options.items()}


def _filled(value: Any, folder: str, url: str) -> Any:
    if isinstance(value, str):
        return value.replace("{folder}", folder).replace("{url}", url)
    if isinstance(value, Mapping):
        return {key: _filled(each, folder, url) for key, each in value.items()}
    return value


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _folder(files: tuple[tuple[str, str], ...]) -> str:
    _KEPT.append(tempfile.TemporaryDirectory(prefix="alignbench-check-"))
    for name, text in files:
        path = Path(_KEPT[-1].name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return _KEPT[-1].name


@functools.cache
def _endpoint(reply: Reply) -> str:
    """The address of a server on this machine that answers as `reply` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = reply([(message["role"], message["content"]) for message in asked["messages"]])
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 7, "completion_tokens": 3}
            body = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing is said of a question."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"
