"""The results folder, to look at."""

from __future__ import annotations

from starlette.routing import BaseRoute

from alignbench.page.settings import PageSettings


def routes(settings: PageSettings) -> list[BaseRoute]:
    """What this part of the page answers."""
    return []
