"""Pages from templates: everything that is put in is escaped."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

PARTS = (("/", "Results"), ("/simulator", "Simulator"), ("/rank", "Rank"))
"""What the head of every page leads to."""
_TEMPLATES = Jinja2Templates(directory=Path(__file__).parent / "templates")


def render(request: Request, template: str, **shown: object) -> Response:
    """`template` with what it shows; `base.html` knows which part of the page it is in."""
    here = max((path for path, _ in PARTS if request.url.path.startswith(path)), key=len, default="")
    return _TEMPLATES.TemplateResponse(request, template, {"parts": PARTS, "here": here, **shown})
