"""Whole runs cost seconds: the one that many tests look at is made once."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.core import harness
from tests.core.harness import SMALL, Command, Done, Heard


@pytest.fixture(scope="session", autouse=True)
def deterministic_switch() -> Iterator[None]:
    """A run turns deterministic algorithms on for its process; no other test should depend on that."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs one command in this process, in a folder of its own; results go to `tmp_path / "runs"`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> Done:
        plain = arguments and "=" not in arguments[0] and not arguments[0].startswith("-")
        where = any(argument.startswith("results_dir=") for argument in arguments)
        return harness.command(capsys, *arguments, *([] if plain or where else [f"results_dir={tmp_path / 'runs'}"]))

    return run


@pytest.fixture
def small(command: Command) -> Command:
    """A run at the smallest size."""
    return lambda *arguments: command(*SMALL, "algo.updates=2", *arguments)


@pytest.fixture
def plugin() -> Iterator[harness.Plugin]:
    with harness.installed() as found:
        yield found


@dataclass(frozen=True)
class Finished:
    """A run of PPO on the world, with every stage, a tracker, and a plugin that listens."""

    path: Path
    done: Done
    heard: Heard


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    results = tmp_path_factory.mktemp("finished")
    out, err = io.StringIO(), io.StringIO()
    with harness.installed() as plugin, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cache = tmp_path_factory.mktemp("cache")
        options = ["algo.updates=3", "reward.updates=2", "tracker=tensorboard"]
        code = harness.run_command([*SMALL, *options, f"results_dir={results}", f"cache_dir={cache}"])
    (path,) = results.iterdir()
    return Finished(path, Done(code, out.getvalue(), err.getvalue()), plugin.heard)
