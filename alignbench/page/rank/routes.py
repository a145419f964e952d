"""Ranking by people: what the browser of a person who ranks asks for, and that of whoever owns the project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from alignbench.errors import UserError
from alignbench.page.answers import as_json, asked
from alignbench.page.rank import export
from alignbench.page.rank.items import annotator_name
from alignbench.page.rank.projects import Projects
from alignbench.page.rank.session import Session
from alignbench.page.rank.store import Project
from alignbench.page.rank.training import PASSES, RankTrainings, algorithms
from alignbench.page.rank.views import Boards, of_state
from alignbench.page.settings import PageSettings
from alignbench.page.templating import render

OWNER, ANNOTATOR = "/rank/{project}/as/{name}", "/annotate/{token}"


def routes(settings: PageSettings) -> list[BaseRoute]:
    """What this part of the page answers."""
    pages = RankPages(settings.rankings, settings.results)
    return [
        Route("/rank", pages.list),
        Route("/rank/{project}", pages.board_page),
        Route("/rank/{project}/board", pages.board),
        Route("/rank/{project}/rankings.jsonl", pages.rankings),
        Route("/rank/{project}/train", pages.train, methods=["POST"]),
        Route("/rank/{project}/training", pages.trainings),
        Route("/rank/{project}/training/{id}", pages.training),
        Route("/rank/{project}/training/{id}/stop", pages.stop, methods=["POST"]),
        Route("/rank/{project}/training/{id}/resume", pages.resume, methods=["POST"]),
        *(
            Route(base + path, endpoint, methods=[method])
            for base in (OWNER, ANNOTATOR)
            for path, endpoint, method in (
                ("", pages.item_page, "GET"),
                ("/state", pages.state, "GET"),
                ("/action", pages.action, "POST"),
            )
        ),
    ]


class RankPages:
    """Methods without `async` are run by Starlette in threads of their own: they wait for the disk."""

    def __init__(self, projects: Path, results: Path) -> None:
        self._projects, self._boards = Projects(projects), Boards()
        self._trainings = RankTrainings(results)

    def list(self, request: Request) -> Response:
        shown = [{"name": project.name, **self._summary(project)} for project in self._projects.all()]
        return render(request, "rank/list.html", projects=shown)

    def _summary(self, project: Project) -> dict[str, Any]:
        items, answers, _ = project.stamp()
        return {"kind": project.settings.kind, "items": items, "answers": answers}

    def board_page(self, request: Request) -> Response:
        project = self._project(request)
        shown = {"algorithms": algorithms(), "passes": f"{PASSES:g}"}
        return render(request, "rank/board.html", project=project.name, **shown)

    def board(self, request: Request) -> Response:
        return as_json(self._boards.of(self._project(request)))

    def rankings(self, request: Request) -> Response:
        project = self._project(request)
        names = request.query_params.get("names", "")
        if names not in ("", "hashed"):
            raise UserError(f"names={names[:40]!a}: leave it out, or give names=hashed.")
        text = export.rankings(project, hashed=names == "hashed")
        headers = {"Content-Disposition": f'attachment; filename="{project.name}-rankings.jsonl"'}
        return Response(text, media_type="application/jsonl", headers=headers)

    def item_page(self, request: Request) -> Response:
        project, who = self._who(request)
        visitor = {"parts": ()} if "token" in request.path_params else {}
        return render(request, "rank/item.html", project=project.name, name=who, **visitor)

    def state(self, request: Request) -> Response:
        return as_json(of_state(self._session(request).state()))

    async def action(self, request: Request) -> Response:
        given = await asked(request)
        return await _in_thread(lambda: as_json(of_state(self._session(request).act(given))))

    async def train(self, request: Request) -> Response:
        given = await asked(request)
        return await _in_thread(lambda: as_json(asdict(self._trainings.start(self._project(request), given))))

    def trainings(self, request: Request) -> Response:
        return as_json([asdict(training) for training in self._trainings.of(self._project(request))])

    def training(self, request: Request) -> Response:
        after, point = (_count(request, name) for name in ("after", "point"))
        return as_json(self._trainings.progress(self._project(request), request.path_params["id"], after, point))

    def stop(self, request: Request) -> Response:
        self._trainings.stop(self._project(request), request.path_params["id"])
        return as_json({})

    def resume(self, request: Request) -> Response:
        return as_json(asdict(self._trainings.resume(self._project(request), request.path_params["id"])))

    def _project(self, request: Request) -> Project:
        return self._projects.get(request.path_params["project"])

    def _who(self, request: Request) -> tuple[Project, str]:
        if "token" not in request.path_params:
            return self._project(request), annotator_name(request.path_params["name"])
        found = self._projects.by_token(request.path_params["token"])
        if found is None:
            raise HTTPException(403, "This link opens nothing: ask whoever gave it to you for a new one.")
        return found[0], found[1].name

    def _session(self, request: Request) -> Session:
        project, name = self._who(request)
        return Session(project, project.annotator(name))


def _count(request: Request, name: str) -> int:
    given = request.query_params.get(name, "0")
    if not given.isascii() or not given.isdigit() or len(given) > 9:
        raise UserError(f"`{name}` is a number of lines.")
    return int(given)


async def _in_thread(answer: Callable[[], Response]) -> Response:
    return await run_in_threadpool(answer)
