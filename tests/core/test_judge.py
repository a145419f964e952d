"""A judge on the command line: what it says stands in the table, and what it did not say is told there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore

from alignbench import DataSource, Policy, Register, RewardSource, Samples, Seeds, UserError, hookimpl, plugins
from tests.core.conftest import Finished
from tests.core.harness import Command, records

JUDGED = {"judge_win_rate", "judge_tie_rate", "judge_reward"}


@dataclass
class OverworkedConfig:
    """A judge that likes short responses, and soon has enough."""

    responses: int = 100
    """How many it looks at."""


class Overworked(RewardSource):
    def __init__(self, config: OverworkedConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        self.left = config.responses

    def score(self, samples: Samples) -> torch.Tensor:
        self.left -= len(samples)
        if self.left < 0:
            raise UserError("too many responses")
        return -samples.sequences.response_mask.sum(1).float()


class Plugin:
    @hookimpl
    def register_rewards(self, register: Register) -> None:
        register("overworked", OverworkedConfig, "tests.core.test_judge:Overworked")


PLUGIN = Plugin()


@pytest.fixture
def overworked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin above, discovered like any other."""
    point = EntryPoint("overworked", "tests.core.test_judge:PLUGIN", "alignbench")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [*entry_points(group=group), point])
    plugins.registry.cache_clear()
    yield
    plugins.registry.cache_clear()
    ConfigStore.instance().repo.get("reward", {}).pop("overworked.yaml", None)


def helpfulness(record: dict) -> dict[str, dict]:
    return {n.removeprefix("helpfulness/"): m for n, m in record["metrics"].items() if n.startswith("helpfulness/")}


def test_without_a_judge_its_metrics_are_left_out(finished: Finished) -> None:
    (record, _) = records(finished.path)
    assert helpfulness(record).keys() == {"gold_reward", "accuracy", "win_rate"}, "36 prompts are few for lc_win_rate"


def test_a_judge_has_its_lines_in_the_table(small: Command, tmp_path: Path) -> None:
    done = small("reward@judge=length", "eval=quick")
    assert done.code == 0, done.err
    found, sft = map(helpfulness, records(tmp_path / "runs"))
    assert JUDGED <= found.keys() == sft.keys()
    assert all(name in done.out for name in JUDGED)
    assert sft["judge_win_rate"]["value"] == 0.5
    assert not any(metric["missing"] for metric in found.values())


@pytest.mark.usefixtures("overworked")
def test_a_judge_that_fails_midway_leaves_a_table_that_says_so(small: Command, tmp_path: Path) -> None:
    """36 prompts with 2 responses each: comparisons go 16 pairs, 32 responses, at a time. The SFT model is compared with
    itself, which asks nothing, and scored: 72. The policy's first pieces of comparison are answered, and then no more."""
    done = small("reward@judge=overworked", "judge.responses=140", "eval.samples=2")
    assert done.code == 0, done.err
    found, sft = map(helpfulness, records(tmp_path / "runs"))
    won = found["judge_win_rate"]
    assert (won["n"], won["missing"]) == (found["judge_tie_rate"]["n"], found["judge_tie_rate"]["missing"])
    assert 0 < won["missing"] < 36 and won["n"] + won["missing"] == 36
    assert not sft["judge_win_rate"]["missing"] and not sft["judge_reward"]["missing"]
    assert "judge_reward" not in found, "it was asked for last, and answered none"
    assert not found["win_rate"]["missing"], "the truth does not fail"
    assert "the judge overworked failed" in done.err and "too many responses" in done.err
    assert f"helpfulness/judge_win_rate of ppo: {won['missing']} of 36 examples have no answer" in " ".join(
        done.out.split()
    )


@pytest.mark.usefixtures("overworked")
def test_an_unknown_judge_is_told_the_choices(command: Command) -> None:
    done = command("reward@judge=overwork")
    assert done.code == 2
    (line,) = done.errors
    assert "Unknown reward 'overwork'. Did you mean 'overworked'? Choices: " in line
    assert "gold" in line
