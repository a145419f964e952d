"""The hooks. Those that register are all of one shape; the last three tell a plugin what happens around a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pluggy

from alignbench.records import RunFinished, RunStarted, RunStep

GROUP = "alignbench"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Register(Protocol):
    """`register(name, config, target)`: target is "package.module:Class", imported only when the component is built."""

    def __call__(self, name: str, config: type, target: str) -> None: ...


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
