"""Who may ask, and what a browser may do with the answer. All that comes in is untrusted: what models, data and people wrote too."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alignbench.page.settings import LOCAL, PageSettings

COOKIE = "alignbench"
CHANGE_HEADER = "x-alignbench-change"
SAFE_METHODS = ("GET", "HEAD")
OPEN = ("/static/", "/annotate/")
"""What a visitor without the page's token may ask for. An annotator's link holds a token of its own, which its route checks."""
MOST_BYTES = 4 * 1024 * 1024
"""Of a request's body."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class TooLargeError(Exception):
    """A body above MOST_BYTES."""


class Security:
    """Stands before every route: the host's name, the visitor's token, and for every change the page's own origin and key."""

    def __init__(self, app: ASGIApp, settings: PageSettings) -> None:
        self._app, self._settings = app, settings
        # Known to pages that this server gave, and to no other site: another origin cannot read it.
        self._key = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refusal(request) or self._session(request)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if refused:
            await refused(scope, receive, guarded)
            return
        try:
            await self._app(scope, limited(receive), guarded)
        except TooLargeError:
            await refusal(413, f"The request is too large: at most {MOST_BYTES:,} bytes.")(scope, receive, guarded)

    def _refusal(self, request: Request) -> Response | None:
        path, headers = request.url.path, request.headers
        if not self._known_host(headers):
            return refusal(400, "This page answers under its own address alone.")
        if not path.startswith(OPEN) and self._settings.token:
            given = request.query_params.get("token", "")
            if given and same(given, self._settings.token):
                entered = RedirectResponse(path, status_code=303)
                entered.set_cookie(COOKIE, given, httponly=True, samesite="strict")
                return entered
            if not same(request.cookies.get(COOKIE, ""), self._settings.token):
                return refusal(403, "This page needs its token: open it as http://.../?token=<token>.")
        if request.method not in SAFE_METHODS:
            if not self._own_origin(headers):
                return refusal(403, "A change must come from this page itself.")
            if not same(headers.get(CHANGE_HEADER, ""), self._key):
                return refusal(403, "The page was opened before the server was started anew: load it again.")
        return None

    def _session(self, request: Request) -> Response | None:
        """The key that changes need: readable from the same origin alone."""
        if request.url.path not in ("/session", "/annotate/session"):
            return None
        return JSONResponse({"key": self._key})

    def _known_host(self, headers: Headers) -> bool:
        """Against names that somebody else's DNS leads here."""
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        return name in LOCAL if self._settings.host in LOCAL else bool(name)

    def _own_origin(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        return bool(origin) and urlsplit(str(origin)).netloc == headers.get("host")


def same(given: str, expected: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def limited(receive: Receive) -> Receive:
    """`receive` that stops at MOST_BYTES."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            raise TooLargeError
        return message

    return counted


def refusal(status: int, words: str) -> Response:
    """In words; half a surrogate pair of a stranger's text becomes a question mark, which can be sent."""
    return PlainTextResponse(words.encode(errors="replace"), status_code=status)
