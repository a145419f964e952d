"""One limit for a whole HTTP request. A socket's own limit is for each piece that comes: a server that sends drop by drop, headers or
body, never reaches it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.request
from functools import partial
from typing import Any


class Deadline:
    """Around one request by its `opener`: after `seconds` its connection is shut, whatever is being waited for, and `passed` is true."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._open: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True
        self.opener = urllib.request.build_opener(_NoRedirects, _Plain(self._open), _Encrypted(self._open))

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()

    def _shut(self) -> None:
        self.passed = True
        for connection in self._open:
            with contextlib.suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(
                    connection, socket.SHUT_RDWR
                )  # of the connection below TLS, which would wait to say goodbye


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address."""

    def redirect_request(self, *args: Any) -> None:
        return None


class _Noted(http.client.HTTPConnection):
    """Notes its socket, by which it can be shut from outside."""

    def __init__(self, *args: Any, noted: list[socket.socket], **options: Any) -> None:
        super().__init__(*args, **options)
        self._noted = noted

    def connect(self) -> None:
        super().connect()
        self._noted.append(self.sock)


class _NotedEncrypted(_Noted, http.client.HTTPSConnection):
    pass


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, noted: list[socket.socket]) -> None:
        super().__init__()
        self._noted = noted

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Noted, noted=self._noted), request)  # type: ignore[arg-type]


class _Encrypted(urllib.request.HTTPSHandler):
    def __init__(self, noted: list[socket.socket]) -> None:
        super().__init__()
        self._noted = noted

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_NotedEncrypted, noted=self._noted), request)  # type: ignore[arg-type]
