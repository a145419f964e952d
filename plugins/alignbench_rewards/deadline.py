"""One limit for a whole HTTP request. A socket's own limit is for each piece that comes: a server that sends drop by drop, headers or
body, never reaches it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.request
from functools import partial
from queue import Empty, Queue
from typing import Any


class Deadline:
    """Around one request by its `opener`: after `seconds` its connection is shut, whatever is being waited for, and `passed` is true."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._seconds, self._end = seconds, float("inf")
        self._open: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True
        self.opener = urllib.request.build_opener(_NoRedirects, _Plain(self._connected), _Encrypted(self._connected))

    def __enter__(self) -> Deadline:
        self._end = time.monotonic() + self._seconds
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        for connection in self._open:
            connection.close()

    def _shut(self) -> None:
        self.passed = True
        for connection in self._open:
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def _connected(self, address: tuple[str, int], *_: object) -> socket.socket:
        """As `socket.create_connection`, with what is left of the limit for all addresses of the name together."""
        failed: OSError = OSError(f"{address[0]} has no address")
        for family, kind, protocol, _name, place in self._addresses(address):
            if (left := self._end - time.monotonic()) <= 0:
                raise TimeoutError("timed out")
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(left)
                connection.connect(place)
            except OSError as error:
                failed = error
                connection.close()
                continue
            # A second handle of the connection: TLS takes the first one over before its handshake, and shutting a connection
            # through TLS would wait to say goodbye.
            self._open.append(connection.dup())
            connection.settimeout(self._seconds)
            if self.passed:  # too late to be shut by the timer
                self._shut()
            return connection
        raise failed

    def _addresses(self, address: tuple[str, int]) -> list[Any]:
        """Those of the name. The system's resolver has limits of its own, of many seconds, and cannot be ended: its thread is left."""
        told: Queue[Any] = Queue()

        def resolve() -> None:
            try:
                told.put(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
            except Exception as error:  # a name may be no name at all: UnicodeError
                told.put(error)

        threading.Thread(target=resolve, daemon=True).start()
        try:
            found = told.get(timeout=max(min(self._end - time.monotonic(), threading.TIMEOUT_MAX), 0))
        except Empty:
            raise TimeoutError("timed out") from None
        if isinstance(found, Exception):
            raise found
        return list(found)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address."""

    def redirect_request(self, *args: Any) -> None:
        return None


class _Watched(http.client.HTTPConnection):
    """Connects by `connected`, before any proxy or TLS is spoken to."""

    def __init__(self, *args: Any, connected: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._create_connection = connected  # http.client's own way to be given another


class _WatchedEncrypted(_Watched, http.client.HTTPSConnection):
    pass


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, connected: Any) -> None:
        super().__init__()
        self._connected = connected

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Watched, connected=self._connected), request)  # type: ignore[arg-type]


class _Encrypted(urllib.request.HTTPSHandler):
    def __init__(self, connected: Any) -> None:
        super().__init__()
        self._connected = connected

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_WatchedEncrypted, connected=self._connected), request)  # type: ignore[arg-type]
