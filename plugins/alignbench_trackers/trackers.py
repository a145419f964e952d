"""Trackers, driven by accelerate's own wrappers (accelerate.tracking); responses go to each in its own kind, as text or as a table."""

from __future__ import annotations

import enum
import html
import importlib.util
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from alignbench import Generation, Tracker, UserError
from alignbench_trackers.config import MLflowConfig, NoneConfig, TensorBoardConfig, TrackioConfig, WandbConfig

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

Config = TypeVar("Config")
Value = str | int | float | bool
RESPONSES = "eval/responses"
SHOWN_WITH_SETTINGS = ("train/reward", "train/kl")
"""What TensorBoard's table of hyperparameters shows beside them."""
COLUMNS = ("prompt", "response", "reward", "kl")
Rows = Sequence[tuple[str, str, float | None, float | None]]


class NoTracker(Tracker):
    """Keeps nothing."""

    def __init__(self, config: NoneConfig, *, directory: Path, run_name: str, settings: Mapping[str, Any]) -> None:
        pass

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def finish(self) -> None:
        pass


class _Accelerate(Tracker, Generic[Config]):
    """One of accelerate's trackers. A subclass names the package, which is also the extra that installs it."""

    package: ClassVar[str]

    def __init__(self, config: Config, *, directory: Path, run_name: str, settings: Mapping[str, Any]) -> None:
        if importlib.util.find_spec(self.package) is None:
            raise UserError(
                f"tracker={self.package} needs a package that is not installed: "
                f"pip install 'alignbench[{self.package}]'."
            )
        from accelerate import PartialState

        PartialState()  # accelerate's trackers log through it and fail without
        try:
            self._tracker = self.build(config, directory, run_name)
            self._tracker.start()
            self.keep(flatten(settings))
        except Exception as error:  # each package has errors of its own: no login, no network, no space
            reason = (str(error).strip().splitlines() or ["its package fails"])[0].rstrip(".")
            raise UserError(
                f"tracker={self.package} cannot start: {reason}. Repair it, or use tracker=none."
            ) from error

    @abstractmethod
    def build(self, config: Config, directory: Path, run_name: str) -> GeneralTracker: ...

    @abstractmethod
    def show(self, rows: Rows, step: int) -> None:
        """Rows of COLUMNS, named RESPONSES."""

    def keep(self, settings: Mapping[str, Value]) -> None:
        """The settings, as hyperparameters of this run."""
        self._tracker.store_init_configuration(dict(settings))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._tracker.log(dict(metrics), step=step)

    def responses(self, generations: Sequence[Generation], step: int) -> None:
        if generations:
            self.show([row(generation) for generation in generations], step)

    def finish(self) -> None:
        self._tracker.finish()


class TensorBoard(_Accelerate[TensorBoardConfig]):
    package = "tensorboard"

    def build(self, config: TensorBoardConfig, directory: Path, run_name: str) -> GeneralTracker:
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker("tensorboard", directory)  # a sub-folder: `tensorboard --logdir` names runs by folder

    def keep(self, settings: Mapping[str, Value]) -> None:
        """In the run's own file: add_hparams, which accelerate calls, makes a second run of them, in a folder below."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._tracker.tracker
        for summary in hparams(dict(settings), dict.fromkeys(SHOWN_WITH_SETTINGS, 0)):
            writer.file_writer.add_summary(summary)
        writer.flush()

    def show(self, rows: Rows, step: int) -> None:
        """As text, which TensorBoard reads as Markdown."""
        lines = [COLUMNS, ("---",) * len(COLUMNS), *([markdown_cell(cell) for cell in line] for line in rows)]
        self._tracker.tracker.add_text(RESPONSES, "\n".join(f"| {' | '.join(line)} |" for line in lines), step)
        self._tracker.tracker.flush()


class Wandb(_Accelerate[WandbConfig]):
    package = "wandb"

    def __init__(self, config: WandbConfig, *, directory: Path, run_name: str, settings: Mapping[str, Any]) -> None:
        self._groups: set[str] = set()
        super().__init__(config, directory=directory, run_name=run_name, settings=settings)

    def build(self, config: WandbConfig, directory: Path, run_name: str) -> GeneralTracker:
        from accelerate.tracking import WandBTracker

        return WandBTracker(config.project, name=run_name, entity=config.entity or None, dir=str(directory))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """W&B has one step for all, which only grows; here each group of names has its own, as its x axis."""
        self._send(dict(metrics), step)

    def show(self, rows: Rows, step: int) -> None:
        import wandb

        self._send({RESPONSES: wandb.Table(columns=list(COLUMNS), data=[list(line) for line in rows])}, step)

    def _send(self, values: Mapping[str, Any], step: int) -> None:
        groups = {name.partition("/")[0] for name in values}
        for group in groups - self._groups:
            self._tracker.tracker.define_metric(f"{group}/step", hidden=True)
            self._tracker.tracker.define_metric(f"{group}/*", step_metric=f"{group}/step")
        self._groups |= groups
        self._tracker.tracker.log({**values, **{f"{group}/step": step for group in groups}})


class Trackio(_Accelerate[TrackioConfig]):
    package = "trackio"

    def build(self, config: TrackioConfig, directory: Path, run_name: str) -> GeneralTracker:
        from accelerate.tracking import TrackioTracker

        return TrackioTracker(config.project, name=run_name)

    def keep(self, settings: Mapping[str, Value]) -> None:
        """In the run's own configuration, which the package sends with the first figures."""
        self._tracker.tracker.config.update(settings)

    def show(self, rows: Rows, step: int) -> None:
        import trackio

        table = trackio.Table(columns=list(COLUMNS), data=[list(line) for line in rows])
        self._tracker.log({RESPONSES: table}, step=step)


class MLflow(_Accelerate[MLflowConfig]):
    package = "mlflow"

    def build(self, config: MLflowConfig, directory: Path, run_name: str) -> GeneralTracker:
        from accelerate.tracking import MLflowTracker

        return MLflowTracker(experiment_name=config.experiment, run_name=run_name)

    def show(self, rows: Rows, step: int) -> None:
        """MLflow appends to a table of the same name."""
        import mlflow

        columns = {name: list(cells) for name, cells in zip(COLUMNS, zip(*rows, strict=True), strict=True)}
        table = {"step": [step] * len(rows), **columns}
        mlflow.log_table(table, f"{RESPONSES}.json", run_id=self._tracker.tracker.info.run_id)


def row(generation: Generation) -> tuple[str, str, float | None, float | None]:
    """Of COLUMNS; None where a figure is not known. KL is of this one response: nats, which over many average to the KL."""
    prompt = "\n".join(f"{message.role}: {message.content}" for message in generation.prompt.messages)
    kl = generation.logprob - generation.ref_logprob
    return prompt, generation.response, generation.proxy_reward, None if math.isnan(kl) else kl


def markdown_cell(value: str | float | None) -> str:
    """One that no text can leave: neither HTML nor Markdown, on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    escaped = "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|" else c for c in html.escape(value))
    return " ".join(escaped.split())


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Nested settings as dotted keys and plain values: all that every tracker takes. Lists become text."""
    flat: dict[str, Value] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, enum.Enum):
            flat[name] = value.name
        elif isinstance(value, bool | int | float | str):
            flat[name] = value
        elif isinstance(value, Sequence):
            flat[name] = ", ".join(map(str, value))
        else:
            flat[name] = str(value)
    return flat
