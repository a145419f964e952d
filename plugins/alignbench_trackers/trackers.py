"""Trackers, driven by accelerate's own wrappers (accelerate.tracking)."""

from __future__ import annotations

import enum
import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from alignbench import Tracker, UserError
from alignbench_trackers.config import MLflowConfig, NoneConfig, TensorBoardConfig, TrackioConfig, WandbConfig

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

Config = TypeVar("Config")
Value = str | int | float | bool


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
            self._tracker.store_init_configuration(flatten(settings))
        except Exception as error:  # each package has errors of its own: no login, no network, no space
            reason = (str(error).strip().splitlines() or ["its package fails"])[0].rstrip(".")
            raise UserError(
                f"tracker={self.package} cannot start: {reason}. Repair it, or use tracker=none."
            ) from error

    @abstractmethod
    def build(self, config: Config, directory: Path, run_name: str) -> GeneralTracker: ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._tracker.log(dict(metrics), step=step)

    def finish(self) -> None:
        self._tracker.finish()


class TensorBoard(_Accelerate[TensorBoardConfig]):
    package = "tensorboard"

    def build(self, config: TensorBoardConfig, directory: Path, run_name: str) -> GeneralTracker:
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker("tensorboard", directory)  # a sub-folder: `tensorboard --logdir` names runs by folder


class Wandb(_Accelerate[WandbConfig]):
    package = "wandb"

    def build(self, config: WandbConfig, directory: Path, run_name: str) -> GeneralTracker:
        from accelerate.tracking import WandBTracker

        return WandBTracker(config.project, name=run_name, entity=config.entity or None, dir=str(directory))


class Trackio(_Accelerate[TrackioConfig]):
    package = "trackio"

    def build(self, config: TrackioConfig, directory: Path, run_name: str) -> GeneralTracker:
        from accelerate.tracking import TrackioTracker

        return TrackioTracker(config.project, name=run_name)


class MLflow(_Accelerate[MLflowConfig]):
    package = "mlflow"

    def build(self, config: MLflowConfig, directory: Path, run_name: str) -> GeneralTracker:
        from accelerate.tracking import MLflowTracker

        return MLflowTracker(experiment_name=config.experiment, run_name=run_name)


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
