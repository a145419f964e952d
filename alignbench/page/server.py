"""The page's server: its parts behind one door."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from alignbench.errors import AlignbenchError, UserError
from alignbench.page.explorer.routes import routes as explorer
from alignbench.page.rank.routes import routes as rank
from alignbench.page.security import HEADERS, Security, refusal
from alignbench.page.settings import PageSettings
from alignbench.page.simulator.routes import routes as simulator

STATIC = Path(__file__).parent / "static"


def create_app(settings: PageSettings) -> Starlette:
    """All of the page. Nothing is read before it is asked for."""
    return Starlette(
        routes=[
            *explorer(settings),
            *simulator(settings),
            *rank(settings),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Security, settings=settings)],
        exception_handlers={AlignbenchError: explained, HTTPException: explained, Exception: unforeseen},
    )


async def explained(request: Request, error: Exception) -> Response:
    """What a visitor can repair, or what is not there: in words."""
    if isinstance(error, HTTPException):
        return refusal(error.status_code, error.detail)
    return refusal(getattr(error, "status", 400), str(error))


async def unforeseen(request: Request, error: Exception) -> Response:
    """A fault of ours: the traceback goes to the server's log, not to the visitor."""
    answer = refusal(500, "Something went wrong here; the server's log has more.")
    answer.headers.update(HEADERS)  # Starlette answers these outside of Security
    return answer


def serve(settings: PageSettings) -> None:
    """Serves until Ctrl-C."""
    listening = bound(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    token = f"?token={quote(settings.token, safe='')}" if settings.token else ""
    print(f"The page is at http://{host}:{listening.getsockname()[1]}/{token} (Ctrl-C ends it)", flush=True)
    uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning", access_log=False)).run(sockets=[listening])


def bound(settings: PageSettings) -> socket.socket:
    """A socket that listens. Raises UserError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        # After a restart the last server's connections may linger.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except UnicodeError:
        raise UserError(f"--host {settings.host}: no name of a machine.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"Port {settings.port} is in use: choose another with --port, or 0 for any that is free."
            ) from error
        raise UserError(f"Cannot serve at {settings.host}:{settings.port}: {error.strerror or error}.") from error
    return listening
