"""A chat-completions endpoint on this machine that does as a test tells it."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-0123456789-secret"
VARIABLE = "JUDGE_TEST_KEY"
PADDING = "x" * 185
BREAKS = {
    "plain": KEY,
    "halves": f"{KEY[:13]}\n{KEY[13:]}",
    "URL": urllib.parse.quote(KEY.replace("-", "/"), safe="").replace("%2F", "%2D"),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "hexadecimal": KEY.encode().hex(),
    "at the cut": PADDING + KEY,
}


def pieces_of_the_key(text: str) -> list[str]:
    """Whatever ten signs in a row of the key, in any of its forms, the text holds."""
    forms = [form.removeprefix(PADDING) for form in BREAKS.values()]
    return [form[i : i + 10] for form in forms for i in range(len(form) - 9) if form[i : i + 10] in text]


@dataclass(frozen=True)
class Answer:
    """`body` is sent as it is; otherwise `text` as a chat completion. `wait` seconds come first."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    wait: float = 0.0
    finish_reason: str = "stop"

    def content(self) -> bytes:
        if self.body is not None:
            return self.body.encode()
        message = {"message": {"role": "assistant", "content": self.text}, "finish_reason": self.finish_reason}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        return json.dumps({"choices": [message], "usage": usage}).encode()


Script = Callable[[int, dict[str, Any]], Answer]
"""From the number of the request, from 0, and its body to the answer."""


@dataclass
class Stub:
    """`asked` are the bodies of the requests, `authorised` their Authorization headers, in the order of their arrival."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    authorised: list[str | None] = field(default_factory=list)
    most_at_once: int = 0

    def texts(self) -> list[str]:
        """What the user says last in each request."""
        return [body["messages"][-1]["content"] for body in self.asked]


@contextmanager
def stub(script: Script) -> Iterator[Stub]:
    lock, now = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number, now = len(found.asked), now + 1
                found.asked.append(body)
                found.authorised.append(self.headers["Authorization"])
                found.most_at_once = max(found.most_at_once, now)
            answer = script(number, body)
            time.sleep(answer.wait)
            content = answer.content()
            with lock:
                now -= 1
            try:
                self.send_response(answer.status)
                for name, value in ({"Content-Length": str(len(content))} | answer.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # it did not wait for the answer
                pass

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    found = Stub(f"http://127.0.0.1:{server.server_port}/v1")
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
