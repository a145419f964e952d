"""Runs of one SFT model whose rewards have the same label: each chooses by its own, also one that comes later."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alignbench import Prompt, Sampling, Split, UserError
from alignbench.commands.cli import run_command
from alignbench.page.simulator import pool, routes, speaking, starts, workshop
from alignbench.page.simulator.checkpoints import chosen_by
from alignbench.page.simulator.workshop import Workshop
from alignbench.page.simulator.world import World, load, own_reward
from tests.core.harness import SMALL
from tests.page.conftest import run_apart

BEST = ("algo=best_of_n", "algo.n=2", "reward.updates=4", "eval.families=[optimization]", "eval.frontier_samples=0")


def train(results: Path, *options: str) -> Path:
    small = [one for one in SMALL if not one.startswith("algo.")]
    before = set(results.glob("*-best*"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        assert run_command([*small, *BEST, f"results_dir={results}", *options]) == 0, err.getvalue()[-2000:]
    (run,) = set(results.glob("*-best*")) - before
    return run


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of few prompts."""
    monkeypatch.setattr(pool, "QUESTIONS", 1)
    monkeypatch.setattr(pool, "SAMPLES", 16)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A results folder, and its two runs: their annotators have one name and opposite wishes."""
    results = tmp_path_factory.mktemp("two") / "runs"
    results.mkdir()
    return results, train(results, "annotator.b_length=3.0"), train(results, "annotator.b_length=-3.0")


def said(world: World) -> Any:
    prompts: list[Prompt] = list(world.data.prompts(Split.EVALUATION))[:2]
    return world.policy.generate(prompts, Sampling(), n=8, rng=torch.Generator().manual_seed(0)).samples


def test_a_run_chooses_by_its_own_reward(two: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    results, *paths = two
    start = starts.chosen(results)
    assert {run.path for run in start.runs} == set(paths)
    world = load(start)
    assert len({named.name for named, _ in world.rewards}) == len({named.label for named, _ in world.rewards}) == 2
    samples = said(world)
    scores = {}
    for run in start.runs:
        (alone,) = load(starts.Start(start.key, (run,))).rewards
        scores[run.path] = chosen_by(world, run, samples)
        torch.testing.assert_close(scores[run.path], alone[1].score(samples))
    one, other = scores.values()
    assert not torch.allclose(one, other), "they want something else"
    monkeypatch.setattr("alignbench.page.simulator.world.MOST_REWARDS", 1)
    one_shown = load(start)
    assert len(one_shown.rewards) == 1
    for run in start.runs:  # one of them is not among those that are shown
        torch.testing.assert_close(own_reward(one_shown, run).score(samples), scores[run.path])


def test_a_reward_that_comes_later_is_at_hand(
    two: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first, second = two
    shutil.copytree(first, tmp_path / first.name)
    shop = Workshop(tmp_path)
    loaded = []
    monkeypatch.setattr(speaking, "load", lambda start: loaded.append(start) or load(start))
    start = starts.chosen(tmp_path)
    world = shop._of(start).world
    asked = next(iter(world.data.prompts(Split.EVALUATION))).text
    assert len(world.rewards) == 1 and shop.ask(start.key, asked)["known"]
    assert len(loaded) == 1, "the same world answers"
    shutil.copytree(first, tmp_path / f"{first.name}-2")
    shop.ask(start.key, asked)
    assert len(loaded) == 1, "a run whose reward is known changes nothing"
    shutil.copytree(second, tmp_path / second.name)
    columns = shop.ask(start.key, asked)["pool"]["columns"]
    assert len(loaded) == 2 and sum(name.startswith("reward-") for name in columns) == 2
    assert {named.name for named, _ in world.rewards} < columns.keys(), "the first keeps its name"


def test_the_world_that_answers_makes_the_samples_too(
    two: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is never a second one in memory, and it is no other world for having answered before."""
    results, *_ = two
    start = starts.chosen(results)
    fresh = pool._made(load(start), lambda text: None)
    shop = Workshop(results)
    speaker = shop._of(start)
    told: list[dict[str, Any]] = []
    prompt = next(iter(speaker.world.data.prompts(Split.EVALUATION)))
    speaker.say(start.runs[0], prompt, 1, told.append)
    made: list[World] = []
    monkeypatch.setattr(pool, "pool", lambda start, say, read_world: made.append(read_world()) or {})
    shop._preparing[("one",)] = ""
    shop._prepare(start, ("one",))
    assert made[0] is speaker.world
    assert pool._made(made[0], lambda text: None) == fresh
    again: list[dict[str, Any]] = []
    speaker.say(start.runs[0], prompt, 1, again.append)
    assert again[-1] == told[-1], "its own weights are read again"


def test_who_waits_and_leaves_waits_no_more_and_few_wait(
    two: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, run, _ = two
    monkeypatch.setattr(workshop, "LOOK", 0.01)
    monkeypatch.setattr(workshop, "MOST_WAITING", 2)
    shop = Workshop(results)
    monkeypatch.setattr(shop, "_of", lambda start: pytest.fail("nobody waits any more"))

    async def wait_until(waiting: int) -> None:
        for _ in range(500):
            if shop._waiting == waiting:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(shop._waiting)

    async def leave() -> None:
        visitors = [shop.say("", run.name, prompt="", text="x", seed=0) for _ in range(2)]
        for visitor in visitors:
            assert await anext(visitor) == {"texts": []}, "not its turn yet"
        await wait_until(2)
        with pytest.raises(UserError, match="2 questions wait"):
            shop.ask("", "x")
        assert "2 questions wait" in (await anext(shop.say("", "", prompt="", text="x", seed=0)))["error"]
        for visitor in visitors:
            await visitor.aclose()
        await wait_until(0)

    with shop._working:
        run_apart(leave())
    assert shop._working.acquire(timeout=5)


def test_who_leaves_while_a_line_is_sent_is_noticed() -> None:
    ended: list[str] = []

    async def source() -> AsyncGenerator[dict[str, Any]]:
        try:
            while True:
                yield {}
        finally:
            ended.append("source")

    async def visit() -> None:
        found, sending = source(), asyncio.Event()

        async def lines() -> AsyncIterator[str]:
            async for event in found:
                yield f"{event}"

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                sending.set()
                await asyncio.Event().wait()

        async def receive() -> Any:
            await sending.wait()
            return {"type": "http.disconnect"}

        answer = routes._Overheard(found, lines())
        await answer({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        assert ended == ["source"], "at once, not when memory is tidied up"

    run_apart(visit())
