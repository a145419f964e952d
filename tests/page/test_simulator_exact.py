"""The simulator on a world whose responses can all be written down: what it shows is no estimate."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alignbench_exact.evaluation import every_completion

from alignbench import REFERENCE, Prompt, Split, functional
from alignbench.app.compose import load_config
from alignbench.commands.cli import run_command
from alignbench.page.simulator import columns, export, pool, starts
from alignbench.page.simulator.beside import same_start
from alignbench.page.simulator.responses import every_response
from alignbench.page.simulator.speaking import Speaker
from alignbench.page.simulator.world import load
from alignbench.results.disk.record import RunRecord
from tests.page.conftest import needs_browser
from tests.page.test_simulator_browser import move, opened  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Page

SMALL = (
    *("experiment=exact", "data.letters=3", "data.contexts=2", "data.demonstrations=200", "data.train_prompts=64"),
    *("model.hidden_size=16", "model.num_layers=1", "model.num_heads=2", "model.intermediate_size=16"),
    *("sft.updates=5", "eval.frontier_samples=0"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PPO and the best of four on the exact world."""
    results = tmp_path_factory.mktemp("exact") / "runs"
    for algo in (("algo=ppo", "algo.updates=4", "algo.batch_size=64"), ("algo=best_of_n", "algo.n=4")):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert run_command([*SMALL, *algo, f"results_dir={results}"]) == 0
    return results


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    return pool.pool(starts.chosen(folder))


def metrics(folder: Path, algo: str) -> dict[str, float]:
    (run,) = folder.glob(f"*-{algo}-*")
    found = RunRecord.from_json((run / "result.json").read_text()).metrics
    return {name: metric.value for name, metric in found.items()}


def test_every_response_is_there_with_its_probability(whole: dict[str, Any], folder: Path) -> None:
    world = load(starts.chosen(folder))
    every = every_response(world.policy)
    tokenizer = world.policy.tokenizer
    assert set(every) == set(every_completion(len(tokenizer), tokenizer.eos_token_id, 2))
    assert (whole["exact"], len(whole["prompts"])) == (True, 2)
    sizes = whole["pool"]["sizes"]
    assert sizes == [13, 13], "1 + 3 that end, and 9 that are cut off: padding is ruled out"
    prior = torch.tensor(columns.read(whole["pool"]["prior"]), dtype=torch.double).view(2, 13)
    assert prior.sum(1).tolist() == pytest.approx([1, 1], abs=1e-12)
    assert [reward["label"] for reward in whole["rewards"]] == ["gold"]
    assert columns.read(whole["pool"]["columns"]["gold"]) == pytest.approx(
        columns.read(whole["pool"]["columns"][whole["rewards"][0]["name"]]), abs=1e-6
    )


def test_checkpoints_are_exact_too(whole: dict[str, Any], folder: Path) -> None:
    """As the evaluation of each run says, which writes down and sums on its own."""
    gold = torch.tensor(columns.read(whole["pool"]["columns"]["gold"]), dtype=torch.double).view(2, 13)
    by_algo = {found["algo"]: found for found in whole["checkpoints"]}
    assert set(by_algo) == {"ppo", "best_of_n"}
    for algo, found in by_algo.items():
        weights = torch.tensor(columns.read(found["weights"]), dtype=torch.double).view(2, 13)
        measured = metrics(folder, algo)
        assert weights.sum(1).tolist() == pytest.approx([1, 1], abs=1e-9)
        assert found["kl"] == pytest.approx(measured["exact/kl"], abs=1e-5) and found["kl"] > 1e-3
        objective = float((weights * gold).sum(1).mean()) - found["kl"]  # data.beta is 1
        assert objective == pytest.approx(measured["exact/objective"], abs=1e-5)
        assert len(found["tokens"]) == 26
    assert by_algo["ppo"]["kl"] != by_algo["best_of_n"]["kl"]


def test_a_run_that_finishes_later_stands_beside_the_others_as_they_do(whole: dict[str, Any], folder: Path) -> None:
    """And what was read for that is not what another run answers with."""
    start = starts.chosen(folder)
    speaker = Speaker(start)
    by_name = {prompt.id: prompt for prompt in speaker.world.data.prompts(Split.EVALUATION)}
    prompts = [by_name[prompt["id"]] for prompt in whole["prompts"]]
    ppo, best = sorted(start.runs, key=lambda run: run.record.identity.algo, reverse=True)

    def answer() -> dict[str, Any]:
        told: list[dict[str, Any]] = []
        speaker.say(ppo, prompts[0], 1, told.append)
        return told[-1]["done"]

    first = answer()
    assert any(ratio for tokens in first["tokens"] for _, ratio in tokens)
    for run in (ppo, best):
        found = json.loads(json.dumps(speaker.beside(run, prompts)))
        (shown,) = [one for one in whole["checkpoints"] if one["run"] == run.path.name]
        assert found.keys() == shown.keys() and found["kl"] == pytest.approx(shown["kl"], abs=1e-9)
        assert columns.read(found["weights"]) == pytest.approx(columns.read(shown["weights"]), abs=1e-9)
    assert answer() == first


def test_a_run_that_is_started_has_the_reward_of_those_beside_it(folder: Path) -> None:
    """The gold reward, which their experiment chose, and not the default of the data."""
    for run in starts.chosen(folder).runs:
        config = load_config(same_start(run))
        assert (config.reward.label, config.annotator.label, config.data.label) == ("gold", "exact", "exact")
        assert config.reward_hash == load_config(["experiment=exact"]).reward_hash
    other = load_config([*same_start(run, {"reward"}), "reward=length"])
    assert other.reward.label == "length", "what is chosen anew is chosen alone"


def enumerated(folder: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The SFT model's probabilities, rewards and lengths of all responses [2, 13], written down by the world's own means."""
    world = load(starts.chosen(folder))
    completions = every_completion(len(world.policy.tokenizer), world.policy.tokenizer.eos_token_id, 2)

    def row(prompt: Prompt) -> list[tuple[float, float, int]]:
        sequences = world.policy.given([prompt] * len(completions), completions)
        with torch.no_grad():
            logprobs = world.policy.logprobs(sequences, role=REFERENCE).logprobs.double().sum(1).exp().tolist()
        texts = world.policy.response_texts(completions)
        ended = [c[-1] == world.policy.tokenizer.eos_token_id for c in completions]
        verdicts = [world.data.judge(prompt, text, finished=end) for text, end in zip(texts, ended, strict=True)]
        rows = zip(logprobs, [v.gold_reward for v in verdicts if v], map(len, completions), strict=True)
        return [found for found in rows if found[0] > 0]

    found = torch.tensor([row(prompt) for prompt in world.data.prompts(Split.EVALUATION)], dtype=torch.double)
    prior, reward, length = found.unbind(2)
    return prior / prior.sum(1, keepdim=True), reward, length


@needs_browser
def test_the_gauges_are_the_enumerated_optimum(
    opened: Callable[..., Page],  # noqa: F811
    whole: dict[str, Any],
    folder: Path,
    tmp_path: Path,
) -> None:
    export.export(whole, tmp_path / "exact.html")
    page = opened((tmp_path / "exact.html").as_uri(), offline=True)
    prior, reward, length = enumerated(folder)
    mean = float((prior * reward).sum(1).mean())
    deviation = math.sqrt(float((prior * (reward - mean) ** 2).sum(1).mean()))
    for place in (0, 2, 40, 60, 100):
        move(page, "#coefficient", place)
        beta = page.evaluate("simulator.beta")
        best = functional.kl_optimum(prior, reward, beta * deviation)
        kl = functional.kl_divergence(best, prior)
        entropy = -(torch.where(best > 0, best * best.log(), 0.0)).sum(1)
        expected = {
            "proxy": ((best * reward).sum(1) - mean) / deviation,
            "gold": (best * reward).sum(1),
            "kl": kl,
            "entropy": entropy,
            "length": (best * length).sum(1),
            "likeliest": best.amax(1),
        }
        now = page.evaluate("simulator.now")
        for name, values in expected.items():
            assert now[name] == pytest.approx(float(values.mean()), abs=1e-6), (place, name)
    assert page.inner_text("#coefficient-name") == "1"
    assert "all 13 responses to each prompt are written down" in page.inner_text("#effective")
    assert "repeats wrong opinions, right answers" in page.inner_text("#missing")
    assert page.inner_text("#too-few") == "" and "effective" not in page.inner_text("#simulator").lower()
    move(page, "#coefficient", 0)
    assert page.inner_text("#coefficient-name") == "none" and page.inner_text("#too-few") == ""
    assert now["likeliest"] < page.evaluate("simulator.now.likeliest") == pytest.approx(1.0)
    assert page.locator("#presets button").count() == 2, "no preset is about an annotator that is not there"
    page.locator("#plot-gold .dot").nth(0).press("Enter")
    assert "exact distribution" in page.inner_text("#prompt-sure")
    assert page.locator("#answers-tilted li").count() == 4
    drawn = page.evaluate("simulator.checkpoints.map((c, k) => simulator.dot(c, k, 'gold').y)")
    gold = reward.flatten()
    for found, y in zip(whole["checkpoints"], drawn, strict=True):
        weights = torch.tensor(columns.read(found["weights"]), dtype=torch.double)
        assert y == pytest.approx(float((weights * gold).sum()) / 2, abs=1e-6)
