"""The hooks. Those that register are all of one shape; the last three tell a plugin what happens around a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import pluggy

from alignbench.records import Metric, ScoredRollout, UpdateReport
from alignbench.records.batches import DemonstrationBatch, LabelledBatch, PreferenceBatch

GROUP = "alignbench"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
"""Marks a function of a plugin's `__init__.py` as a hook: without it the function is not found."""


@dataclass(frozen=True)
class RunStarted:
    """What a hook is told when a run starts."""

    directory: str
    algo: str
    model: str
    data: str
    seed: int


@dataclass(frozen=True)
class RunStep:
    """What a hook is told after every update of every stage. It reads, and changes nothing.

    `batch` is what the algorithm has just learnt from, on its device (a ScoredRollout, PreferenceBatch, LabelledBatch or
    DemonstrationBatch), and `report` all that it said; both are None of the fit of a reward source."""

    directory: str
    stage: str
    update: int
    metrics: Mapping[str, float]
    batch: ScoredRollout | PreferenceBatch | LabelledBatch | DemonstrationBatch | None = None
    report: UpdateReport | None = None


@dataclass(frozen=True)
class RunFinished:
    """What a hook is told when a run ends; `status` is finished, interrupted or failed."""

    directory: str
    status: str
    metrics: Mapping[str, Metric]


class Register(Protocol):
    """`register(name, config, target)`: target is "package.module:Class", imported only when the component is built."""

    def __call__(self, name: str, config: type, target: str) -> None: ...


class RegisterFunction(Protocol):
    """`register(name, summary, target)`: a line that says what it is, and "package.module:function", imported only when it is called."""

    def __call__(self, name: str, summary: str, target: str) -> None: ...


@hookspec
def register_algorithms(register: Register) -> None:
    """Register policy optimizers (`algo=`); the config derives from OptimizerConfig and declares `consumes`."""


@hookspec
def register_models(register: Register) -> None:
    """Register policies (`model=`)."""


@hookspec
def register_data(register: Register) -> None:
    """Register data sources (`data=`)."""


@hookspec
def register_rewards(register: Register) -> None:
    """Register reward sources (`reward=`)."""


@hookspec
def register_annotators(register: Register) -> None:
    """Register annotators (`annotator=`)."""


@hookspec
def register_evaluations(register: Register) -> None:
    """Register evaluations (named in `eval.families`)."""


@hookspec
def register_trackers(register: Register) -> None:
    """Register trackers (`tracker=`)."""


@hookspec
def register_optimizers(register: Register) -> None:
    """Register optimizers of weights (named in `algo.optimizer`); the target makes a torch.optim.Optimizer."""


@hookspec
def register_schedules(register: Register) -> None:
    """Register schedules of the learning rate (named in `algo.lr_schedule`); the target is a function."""


@hookspec
def register_samplers(register: Register) -> None:
    """Register samplers of causal language models (named in `model.sampler`)."""


@hookspec
def register_stages(register: Register) -> None:
    """Register stages between those of a run (named in `stages`); the config declares `place`."""


@hookspec
def register_formats(register: Register) -> None:
    """Register layouts of rows (named in `data.format`)."""


@hookspec
def register_commands(register: RegisterFunction) -> None:
    """Register commands (`alignbench <name>`): `function(arguments)` returns the exit code."""


@hookspec
def register_sections(register: RegisterFunction) -> None:
    """Register sections of the HTML report: `function(rows)` returns a Section, or None."""


@hookspec
def register_presets(register: Callable[[str], None]) -> None:
    """Register folders of YAML presets: `register("package")` adds `package/conf` to the config search path."""


@hookspec
def run_started(event: RunStarted) -> None:
    """Called when a run's directory exists and nothing is trained yet."""


@hookspec
def run_step(event: RunStep) -> None:
    """Called after every update of every stage."""


@hookspec
def run_finished(event: RunFinished) -> None:
    """Called when a run ends, however it ends."""
