"""Where training curves go: nowhere, or to a tracker that accelerate drives."""

from alignbench import Register, hookimpl
from alignbench_trackers.config import MLflowConfig, NoneConfig, TensorBoardConfig, TrackioConfig, WandbConfig


@hookimpl
def register_trackers(register: Register) -> None:
    register("none", NoneConfig, "alignbench_trackers.trackers:NoTracker")
    register("tensorboard", TensorBoardConfig, "alignbench_trackers.trackers:TensorBoard")
    register("wandb", WandbConfig, "alignbench_trackers.trackers:Wandb")
    register("trackio", TrackioConfig, "alignbench_trackers.trackers:Trackio")
    register("mlflow", MLflowConfig, "alignbench_trackers.trackers:MLflow")
