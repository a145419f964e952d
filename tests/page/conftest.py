"""A page served in this process, and a browser that opens it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn

from alignbench.commands.cli import run_command
from alignbench.page.server import create_app
from alignbench.page.settings import PageSettings
from alignbench.page.simulator import pool, starts
from tests.core.harness import SMALL

Found = TypeVar("Found")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH"
)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def run_apart(work: Coroutine[Any, Any, Found]) -> Found:
    """`asyncio.run` in a thread of its own: where a browser is open, this one has a loop already."""
    with ThreadPoolExecutor(1) as pool_:
        return pool_.submit(asyncio.run, work).result()


@contextlib.contextmanager
def served(results: Path) -> Iterator[str]:
    """The address of a page on `results`."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(PageSettings(results, port=0)), port=0, log_level="error", access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True  # a live view may be listening still
        thread.join(10)


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """`serve(results)` gives the address of a page that lives as long as the test."""
    with contextlib.ExitStack() as open_servers:
        yield lambda results: open_servers.enter_context(served(results))


# The simulator: one small run of the world, whose samples are made once


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one small run of PPO."""
    folder = tmp_path_factory.mktemp("results") / "runs"
    options = ("algo.updates=2", "reward.updates=2", "eval.families=[optimization]", "eval.frontier_samples=0")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert run_command([*SMALL, *options, f"results_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def sizes() -> Iterator[None]:
    """Few samples of few prompts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "QUESTIONS", 2)
        patch.setattr(pool, "SAMPLES", 256)
        yield


@pytest.fixture(scope="session")
def simulated(results: Path, sizes: None) -> dict[str, Any]:
    return pool.pool(starts.chosen(results))
