"""The page's server: its parts behind one door."""

from __future__ import annotations

from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from alignbench.errors import AlignbenchError
from alignbench.page.explorer.routes import routes as explorer
from alignbench.page.rank.routes import routes as rank
from alignbench.page.security import Security, refusal
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
    return refusal(500, "Something went wrong here; the server's log has more.")


def serve(settings: PageSettings) -> None:
    """Serves until Ctrl-C."""
    token = f"?token={settings.token}" if settings.token else ""
    print(f"The page is at http://{settings.host}:{settings.port}/{token} (Ctrl-C ends it)", flush=True)
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning", access_log=False)
