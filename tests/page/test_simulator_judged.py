"""A judge's scores in the place of a truth that nobody knows, and the preset that shows what a run found out."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alignbench_rewards.config import MixConfig
from alignbench_rewards.mix import MixReward

from alignbench.app.compose import load_config
from alignbench.page.simulator import columns, pool, starts
from alignbench.page.simulator.beside import same_start
from alignbench.page.simulator.world import is_current, load
from tests.page.conftest import needs_browser
from tests.page.test_simulator_browser import opened  # noqa: F401
from tests.page.test_simulator_speaking import chatting, run_on  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Page

TARGET = f"judge.target={__name__}:vowels"


def vowels(prompt: str, response: str) -> float:
    return float(sum(response.count(letter) for letter in "aeiou"))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "OF_PRETRAINED", (2, 32))


@pytest.fixture(scope="module")
def judged(chatting: Path) -> Path:  # noqa: F811
    """Runs with a reward: one that goes far and one that hardly moves, both judged by another; and a last one that nobody judged."""
    by_judge = ("reward@judge=function", TARGET)
    for options in (by_judge, (*by_judge, "algo.learning_rate=1e-6"), ("algo.learning_rate=2e-6",)):
        results = run_on(chatting, "judged", "algo=ppo", "reward=length", *options)
        time.sleep(1)  # their names, by which they are ordered, have seconds
    return results


def test_who_judged_the_runs_is_the_gold_reward_where_the_data_know_none(
    judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = starts.chosen(judged)
    assert len(start.runs) == 3
    made = pool._made(load(start), lambda text: None)
    assert made["gold"] == "reward@judge=function"
    gold = columns.read(made["pool"]["columns"]["gold"])
    assert gold == pytest.approx([vowels("", text) for text in made["pool"]["texts"]], abs=1e-3) and max(gold) > 0
    for checkpoint in made["checkpoints"]:
        scores = columns.read(checkpoint["columns"]["gold"])
        assert scores == pytest.approx([vowels("", text) for text in checkpoint["texts"]], abs=1e-3)
    alone = dataclasses.replace(start, runs=start.runs[:1])
    assert load(alone).gold is None, "nobody judged"
    assert is_current(load(start), start) and not is_current(load(alone), start)
    monkeypatch.setattr("alignbench_rewards.function.FunctionReward.asks_elsewhere", lambda config: True)
    assert load(start).gold is None, "nobody is asked, or paid, for a page"


def test_a_mix_that_asks_somebody_asks_somebody() -> None:
    judge = {"model": "a", "url": "http://127.0.0.1:9"}
    paid = MixConfig(parts={"judge": 1.0, "length": -0.1}, options={"judge": judge})
    assert MixReward.asks_anybody(paid) and not MixReward.asks_elsewhere(paid)
    assert not MixReward.asks_anybody(MixConfig(parts={"length": 1.0}))


def test_what_the_judge_does_not_answer_is_not_known(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(prompt: str, response: str) -> float:
        if "e" in response:
            raise KeyError("e")
        return 1.0

    monkeypatch.setattr(f"{__name__}.vowels", picky)
    gold = columns.read(pool._made(load(starts.chosen(judged)), lambda text: None)["pool"]["columns"]["gold"])
    assert any(math.isnan(value) for value in gold) and 1.0 in gold


def test_a_judge_that_cannot_be_had_takes_nothing_else_away(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"{__name__}.vowels")
    world = load(starts.chosen(judged))
    assert world.gold is None and len(world.rewards) == 1


def test_a_run_that_is_started_is_judged_as_those_beside_it(judged: Path) -> None:
    unjudged, *others = starts.chosen(judged).runs
    assert load_config(same_start(unjudged)).judge is None
    for run in others:
        judge = load_config(same_start(run)).judge
        assert judge is not None and (judge.label, f"judge.target={judge.config.target}") == ("function", TARGET)


@needs_browser
def test_a_preset_shows_what_the_furthest_run_found_out(
    opened: Callable[..., Page],  # noqa: F811
    serve: Callable[[Path], str],
    judged: Path,
) -> None:
    preset = "#presets button:has-text('Reward hacking, as trained')"
    page = opened(f"{serve(judged)}/simulator")
    assert page.is_visible("#gauge-gold") and page.is_visible("#figure-gold")
    assert "reward@judge=function" in page.inner_text("#gauge-gold")
    assert "reward@judge=function" in page.inner_text("#figure-gold")
    page.click(preset)
    assert page.get_attribute(preset, "aria-pressed") == "true"
    found = pool.pool(starts.chosen(judged))["checkpoints"]
    far = max(found, key=lambda checkpoint: checkpoint["kl"])
    place = found.index(far)
    assert place == 2, "it was made first, and is shown last"
    assert page.input_value("#checkpoint") == str(place)
    said = page.locator("#answers-tilted .said").all_inner_texts()
    assert said and all(text in [*far["texts"], "(says nothing)"] for text in said)
