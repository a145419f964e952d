"""Options of the trackers."""

from __future__ import annotations

from dataclasses import dataclass

from alignbench import UserError


@dataclass
class NoneConfig:
    """No tracker: the curves are in train.jsonl all the same."""


@dataclass
class TensorBoardConfig:
    """TensorBoard event files in the run's directory."""


@dataclass
class WandbConfig:
    """Weights & Biases; log in with `wandb login` or set WANDB_MODE=offline."""

    project: str = "alignbench"
    """The project that runs are filed under."""
    entity: str = ""
    """The user or team; empty: the one that is logged in."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        _named("project", self.project)


@dataclass
class TrackioConfig:
    """trackio: local and free, shown with `trackio show`."""

    project: str = "alignbench"
    """The project that runs are filed under."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        _named("project", self.project)


@dataclass
class MLflowConfig:
    """MLflow, at MLFLOW_TRACKING_URI or else its own default place."""

    experiment: str = "alignbench"
    """The experiment that runs are filed under."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        _named("experiment", self.experiment)


def _named(option: str, name: str) -> None:
    if not name.strip():
        raise UserError(f"tracker.{option} is empty: name what runs are filed under.")
