"""Runs commands in this process, at the smallest size, with a plugin of this file's own where a test needs one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alignbench import (
    DataSource,
    Demonstration,
    Labelled,
    Policy,
    PolicyOptimizer,
    PreferenceBatch,
    PreferenceConfig,
    Prompt,
    Ranking,
    Register,
    RewardSource,
    RunFinished,
    RunStarted,
    RunStep,
    Samples,
    Seeds,
    Split,
    UpdateReport,
    functional,
    hookimpl,
    plugins,
)
from alignbench.commands.cli import run_command
from tests import tiny
from tests.core import added

# Every stage of a run, in about two seconds. Nothing is asserted about what it learns.
SMALL = (
    *("pretrain.updates=2", "sft.updates=3"),
    *("sft.batch_size=16", "sft.micro_batch_size=16", "algo.batch_size=16", "algo.micro_batch_size=16"),
    *("rankings.prompts=20", "rankings.responses=3", "eval.samples=2", "eval.frontier_samples=16"),
    *("data.train_prompts=100", "data.demonstrations=100", "data.evaluation_questions=12"),
)


@dataclass(frozen=True)
class Done:
    """What a command did. `errors` are the lines of stderr that begin as an error does."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("alignbench: error: ")]


Command = Callable[..., Done]


def command(capture: pytest.CaptureFixture[str], *arguments: str) -> Done:
    capture.readouterr()
    code = run_command(arguments)
    out, err = capture.readouterr()
    return Done(code, out, err)


def records(results: Path) -> list[dict[str, Any]]:
    """Every result.json below a folder, that of the run before that of its SFT model."""
    found = sorted(results.rglob("result.json"), key=lambda path: (len(path.parts), path))
    return [json.loads(path.read_text()) for path in found]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# A plugin, registered by `installed()`


@dataclass
class FaultyConfig:
    """A reward source that breaks its contract."""

    fault: str = "nan"
    """nan, infinity, shape or late (NaN from the fourth batch on)."""


@dataclass
class ImitateConfig(PreferenceConfig):
    """Imitates the preferred response: the least algorithm that learns from preferences."""


@dataclass
class PeopleConfig:
    """What people said of sixteen responses, in letters."""

    annotator: ClassVar[str] = "recorded"

    form: str = "pairs"
    """pairs, labels, held_out (labels of evaluation prompts alone), or ordinary (pairs, without a tokenizer of its own)."""


class People(DataSource):
    """Words that begin with an a are good, those with a b bad. Four of the prompts are evaluation prompts."""

    def __init__(self, config: PeopleConfig, *, seeds: Seeds) -> None:
        self.config = config
        texts = [f"{one} {other}" for one in "cdef" for other in "cdef"]
        self.asked = [tiny.prompt(text) for text in texts]

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return None if self.config.form == "ordinary" else tiny.letters()

    def demonstrations(self) -> Sequence[Demonstration]:
        return [Demonstration(prompt, "a c") for prompt in self.asked[4:]]

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return self.asked[:4] if split is Split.EVALUATION else self.asked[4:]

    def rankings(self) -> Sequence[Ranking]:
        asked = () if self.config.form in ("labels", "held_out") else self.asked
        return [Ranking(prompt, ("a d", "b"), (0, 1)) for prompt in asked]

    def labelled(self) -> Sequence[Labelled]:
        asked = {"labels": self.asked, "held_out": self.asked[:4]}.get(self.config.form, ())
        return [Labelled(prompt, "b" if i % 3 == 0 else "a d", good=i % 3 > 0) for i, prompt in enumerate(asked)]


class FaultyReward(RewardSource):
    def __init__(self, config: FaultyConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        self.config, self.calls = config, 0

    def score(self, samples: Samples) -> Tensor:
        self.calls += 1
        if self.config.fault == "shape":
            return torch.zeros(len(samples), 1)
        scores = torch.zeros(len(samples))
        if self.config.fault != "late" or self.calls > 3:
            scores[0] = float("inf") if self.config.fault == "infinity" else float("nan")
        return scores


class Imitate(PolicyOptimizer[PreferenceBatch]):
    def __init__(self, config: ImitateConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        self.policy = policy
        self.optimizer = functional.ScheduledAdamW(config, {"policy": policy.trainable()}, updates)

    def update(self, batch: PreferenceBatch) -> UpdateReport:
        self.optimizer.next_update()
        self.optimizer.zero_grad()
        loss = -self.policy.logprobs(batch.chosen).logprobs.sum() / len(batch.chosen)
        loss.backward()
        self.optimizer.step()
        return UpdateReport({"loss": float(loss.detach()), "known": float(batch.probability is not None)}, 1)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


@dataclass
class Heard:
    """The events that the plugin's hooks were called with."""

    started: list[RunStarted] = field(default_factory=list)
    steps: list[RunStep] = field(default_factory=list)
    finished: list[RunFinished] = field(default_factory=list)


class Plugin:
    """`raise_at`: (stage, update, error): the hook for that update raises. `on_start` and `on_step` are called when a run starts
    and at every update; `on_end` is raised when a run has ended."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.raise_at: tuple[str, int, BaseException] | None = None
        self.on_start: Callable[[RunStarted], None] = lambda event: None
        self.on_step: Callable[[RunStep], None] = lambda event: None
        self.on_end: BaseException | None = None

    @hookimpl
    def register_rewards(self, register: Register) -> None:
        register("faulty", FaultyConfig, "tests.core.harness:FaultyReward")

    @hookimpl
    def register_algorithms(self, register: Register) -> None:
        register("imitate", ImitateConfig, "tests.core.harness:Imitate")

    @hookimpl
    def register_data(self, register: Register) -> None:
        register("people", PeopleConfig, "tests.core.harness:People")

    @hookimpl
    def register_stages(self, register: Register) -> None:
        register("early", added.EarlyConfig, "tests.core.added:Look")
        register("middle", added.MiddleConfig, "tests.core.added:Look")
        register("late", added.LateConfig, "tests.core.added:Look")

    @hookimpl
    def register_formats(self, register: Register) -> None:
        register("dashes", added.DashesConfig, "tests.core.added:Dashes")

    @hookimpl
    def run_started(self, event: RunStarted) -> None:
        self.heard.started.append(event)
        self.on_start(event)

    @hookimpl
    def run_step(self, event: RunStep) -> None:
        self.heard.steps.append(event)
        self.on_step(event)
        if self.raise_at and (event.stage, event.update) == self.raise_at[:2]:
            raise self.raise_at[2]

    @hookimpl
    def run_finished(self, event: RunFinished) -> None:
        self.heard.finished.append(event)
        if self.on_end:
            raise self.on_end


PLUGIN: Plugin


@contextmanager
def installed() -> Iterator[Plugin]:
    """The plugin above, discovered like any other for as long as the context lasts."""
    global PLUGIN
    PLUGIN = Plugin()
    point = EntryPoint("harness", "tests.core.harness:PLUGIN", "alignbench")
    store = ConfigStore.instance()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", lambda group: [*entry_points(group=group), point])
        plugins.registry.cache_clear()
        try:
            yield PLUGIN
        finally:
            plugins.registry.cache_clear()
            for group, name in (("reward", "faulty"), ("algo", "imitate"), ("data", "people")):
                store.repo.get(group, {}).pop(f"{name}.yaml", None)


def finite(values: Sequence[float]) -> bool:
    return bool(torch.isfinite(torch.tensor(list(values), dtype=torch.float64)).all())
