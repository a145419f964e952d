"""The results folder, to look at: what `alignbench compare` shows, to choose from."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from alignbench.errors import unknown_name
from alignbench.page.explorer import responses, tables
from alignbench.page.explorer.library import Library, Snapshot
from alignbench.page.explorer.view import MOST_ROWS, View, compared, select, text_of
from alignbench.page.settings import PageSettings
from alignbench.page.templating import render
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun

PLOTS = {
    "frontier": "KL-gold frontier",
    "differences": "Primary differences",
    "training": "Training curves",
    "sycophancy": "Sycophancy",
    "diversity": "Diversity",
    "cost": "Cost",
    "overoptimisation": "Over-optimisation along training",
    "exploratory": "Exploratory differences",
    "training_more": "More training curves",
}
"""Those of the report, by what a menu calls them; the report itself takes time to import."""
OF_DIFFERENCES = ("differences", "exploratory")
CELLS_ALONE = ("sycophancy", "diversity", "cost")
"""Of them those that read no file of a run."""
Answer = Callable[[Snapshot, QueryParams], dict[str, Any]]


def routes(settings: PageSettings) -> list[BaseRoute]:
    """What this part of the page answers."""
    library = Library(settings.results)

    def page(request: Request) -> Response:
        return render(request, "explorer.html", plots=list(PLOTS.items()))

    def state(snapshot: Snapshot, asked: QueryParams) -> dict[str, Any]:
        running = sum(run.record.status is Status.RUNNING for run in snapshot.runs)
        return {"version": snapshot.version, "problem": snapshot.problem, "running": running}

    def table(snapshot: Snapshot, asked: QueryParams) -> dict[str, Any]:
        page = tables.page_of(asked.get("page", ""))
        return tables.table(library, snapshot, View.of(asked), asked.get("sort", ""), page)

    def differences(snapshot: Snapshot, asked: QueryParams) -> dict[str, Any]:
        return tables.table_differences(library, snapshot, View.of(asked))

    def plot(snapshot: Snapshot, asked: QueryParams) -> dict[str, Any]:
        name, view = asked.get("plot", ""), View.of(asked)
        if name not in PLOTS:
            raise unknown_name("plot", name, PLOTS)
        selection = select(library, snapshot, view)
        if selection.too_many and (len(selection.table.rows) > MOST_ROWS or name not in CELLS_ALONE):
            return {"refused": selection.refused, "plots": []}
        figures = importlib.import_module("alignbench.page.explorer.figures")
        found = library.recent.get(
            ("plot", snapshot.version, view, name),
            lambda: figures.plots(
                selection.shown if name in OF_DIFFERENCES else selection.table,
                [d for d in compared(library, snapshot, view) if d.metric in selection.metrics],
                name,
            ),
        )
        return {"refused": selection.refused if name in OF_DIFFERENCES else "", "plots": found}

    def answers(snapshot: Snapshot, asked: QueryParams) -> dict[str, Any]:
        page = tables.page_of(asked.get("page", ""))
        return responses.side_by_side(library.recent, _runs(snapshot, asked), asked.get("q", ""), page)

    def runs(snapshot: Snapshot, asked: QueryParams) -> dict[str, Any]:
        page = tables.page_of(asked.get("page", ""))
        return tables.run_list(snapshot, asked.get("q", ""), asked.get("status", ""), page)

    def training(snapshot: Snapshot, asked: QueryParams) -> dict[str, Any]:
        watching = importlib.import_module("alignbench.page.explorer.watching")
        found = _runs(snapshot, asked)
        labels = {
            name: f"{text_of(row)}, seed {run.record.identity.seed}"
            for row in snapshot.table.rows
            for run in row.runs
            if (name := library.id_of(run)) in found
        }
        return {"version": snapshot.version, **watching.watch(found, labels, asked.get("stage", ""))}

    def settings_of(snapshot: Snapshot, asked: QueryParams) -> dict[str, Any]:
        watching = importlib.import_module("alignbench.page.explorer.watching")
        return {"version": snapshot.version, **watching.compare_settings(_runs(snapshot, asked))}

    answered: Mapping[str, Answer] = {
        "state": state, "table": table, "differences": differences, "plot": plot, "responses": answers,
        "runs": runs, "training": training, "settings": settings_of,
    }  # fmt: skip
    return [
        Route("/", page),
        *(Route(f"/results/{name}", _json(library, answer)) for name, answer in answered.items()),
    ]


def _json(library: Library, answer: Answer) -> Callable[[Request], Response]:
    """In a thread of its own: what takes long holds nobody up."""

    def endpoint(request: Request) -> Response:
        return _Ascii(answer(library.now(), request.query_params))

    return endpoint


class _Ascii(JSONResponse):
    """Texts of runs may hold half a surrogate pair, which UTF-8 cannot say."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _runs(snapshot: Snapshot, asked: QueryParams) -> dict[str, StoredRun]:
    return {name: snapshot.run(name) for name in dict.fromkeys(asked.getlist("run"))}
