"""The simulator: what a policy becomes when what is wanted changes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from alignbench.errors import AlignbenchError, UserError
from alignbench.page.answers import as_json, asked
from alignbench.page.settings import PageSettings
from alignbench.page.simulator import starts
from alignbench.page.simulator.beside import same_start
from alignbench.page.simulator.workshop import Workshop
from alignbench.page.simulator.world import reward_of
from alignbench.page.templating import render
from alignbench.page.training import Training, Trainings

EVERY = 0.7
"""Seconds between two looks at a run that is being trained."""
RUNNING = ("starting", "running")


def routes(settings: PageSettings) -> list[BaseRoute]:
    """What this part of the page answers."""
    parts = Simulator(settings)
    return [
        Route("/simulator", parts.page),
        Route("/simulator/starts", parts.starts),
        Route("/simulator/pool", parts.pool),
        Route("/simulator/checkpoint", parts.checkpoint),
        Route("/simulator/ask", parts.ask, methods=["POST"]),
        Route("/simulator/say", parts.say, methods=["POST"]),
        Route("/simulator/trainings", parts.trainings, methods=["GET"]),
        Route("/simulator/trainings", parts.train, methods=["POST"]),
        Route("/simulator/trainings/{id}/events", parts.events),
        Route("/simulator/trainings/{id}/{act:str}", parts.act, methods=["POST"]),
    ]


class Simulator:
    """Its answers. What takes long runs in threads."""

    def __init__(self, settings: PageSettings) -> None:
        self._results = settings.results
        self._workshop = Workshop(settings.results)
        self._trainings = Trainings(settings.results)

    def page(self, request: Request) -> Response:
        return render(request, "simulator.html", live=True, waiting="Loading the samples ...")

    def starts(self, request: Request) -> Response:
        found = [{"key": s.key, "label": s.label, "runs": len(s.runs)} for s in starts.starts(self._results)]
        return JSONResponse({"starts": found})

    def pool(self, request: Request) -> Response:
        return JSONResponse(self._workshop.pool(request.query_params.get("start", "")))

    def checkpoint(self, request: Request) -> Response:
        given = request.query_params
        return as_json(self._workshop.checkpoint(given.get("start", ""), given.get("run", "")))

    async def ask(self, request: Request) -> Response:
        body = await asked(request)
        return as_json(await run_in_threadpool(self._workshop.ask, _text(body, "start"), _text(body, "text")))

    async def say(self, request: Request) -> Response:
        """One JSON object a line: the texts so far, then the answers with all that is known of them, or an error in words."""
        body = await asked(request)
        start, run, prompt, text = (_text(body, name) for name in ("start", "run", "prompt", "text"))
        seed = body.get("seed", 0)
        if not isinstance(seed, int):
            raise UserError("seed is no whole number.")
        found = await run_in_threadpool(lambda: self._workshop.say(start, run, prompt=prompt, text=text, seed=seed))

        async def lines() -> AsyncIterator[str]:
            async for event in found:
                yield f"{json.dumps(event, allow_nan=False)}\n"

        return _Overheard(found, lines())

    def trainings(self, request: Request) -> Response:
        return JSONResponse([{"id": training.id, "title": training.title} for training in self._trainings.all()])

    async def train(self, request: Request) -> Response:
        """The model, the data and the seed are those of the SFT model that is simulated: it is not trained again."""
        body = await asked(request)
        choices = body.get("choices")
        if not isinstance(choices, Mapping):
            raise UserError("choices: what the run is to be is missing.")
        start = await run_in_threadpool(starts.chosen, self._results, _text(body, "start"))
        if odd := sorted(choices.keys() & {"model", "data", "seed"}):
            raise UserError(f"{odd[0]} cannot be set here: it is that of the SFT model.")

        def begin() -> Training:
            wanted = _text(
                body, "reward"
            )  # the name of one that a run had: then its own, with the annotator that it was learnt from
            of = next((run for run in start.runs if wanted and (its := reward_of(run)) and its.name == wanted), None)
            fixed = same_start(of or start.runs[0], {str(key).partition(".")[0] for key in choices})
            return self._trainings.start(choices, fixed=fixed, title=_text(body, "title")[:120])

        found = await run_in_threadpool(begin)
        return JSONResponse({"id": found.id})

    async def act(self, request: Request) -> Response:
        what = {"stop": self._trainings.stop, "resume": self._trainings.resume}.get(request.path_params["act"])
        if what is None:
            raise UserError("A training can be stopped or gone on with.")
        await run_in_threadpool(what, request.path_params["id"])
        return JSONResponse({})

    async def events(self, request: Request) -> Response:
        """Server-sent events: how a training stands, with the new lines of its train.jsonl and its new points, until it has
        ended. `gone`: with its results folder."""
        name = request.path_params["id"]
        await run_in_threadpool(self._trainings.progress, name)  # an unknown one is refused before anything is sent

        async def told() -> AsyncIterator[str]:
            known, seen = 0, 0
            while not await request.is_disconnected():
                try:
                    at = await run_in_threadpool(self._trainings.progress, name, known, seen)
                except AlignbenchError as error:
                    yield _event({"status": "gone", "error": str(error)})
                    return
                known, seen = at.next, at.next_point
                yield _event(asdict(at))
                if at.status not in RUNNING:
                    return
                await anyio.sleep(EVERY)

        return StreamingResponse(told(), media_type="text/event-stream")


class _Overheard(StreamingResponse):
    """Lines of something that is to end with its listener, also with one who leaves while a line is sent."""

    def __init__(self, source: AsyncGenerator[Any], lines: AsyncIterator[str]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()


def _event(found: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(found)}\n\n"


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise UserError(f"{name} is not text.")
    return value
