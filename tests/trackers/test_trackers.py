import enum
import importlib.util
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from alignbench_trackers.config import MLflowConfig, NoneConfig, TensorBoardConfig, TrackioConfig, WandbConfig
from alignbench_trackers.trackers import MLflow, NoTracker, TensorBoard, Trackio, Wandb, flatten

from alignbench import UserError, plugins
from alignbench.plugins import Kind


class Colour(enum.Enum):
    RED = "r"


def test_tensorboard_keeps_every_scalar_at_its_step(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = {"seed": 0, "algo": {"name": "ppo", "learning_rate": 1e-3, "targets": ["a", "b"]}, "none": None}
    tracker = TensorBoard(TensorBoardConfig(), directory=tmp_path, run_name="run", settings=settings)
    for step in range(3):
        tracker.log({"ppo/reward": step / 2, "ppo/kl": -step}, step)
    tracker.finish()
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("ppo/reward")] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert [e.value for e in events.Scalars("ppo/kl")] == [0.0, -1.0, -2.0]
    (settings_file,) = tmp_path.glob("tensorboard/*/hparams.yml")
    assert "algo.learning_rate: 0.001" in settings_file.read_text()


def test_none_keeps_nothing(tmp_path: Path) -> None:
    tracker = NoTracker(NoneConfig(), directory=tmp_path, run_name="run", settings={})
    tracker.log({"reward": 1.0}, 0)
    tracker.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tracker", "config"),
    [(TensorBoard, TensorBoardConfig()), (Wandb, WandbConfig()), (Trackio, TrackioConfig()), (MLflow, MLflowConfig())],
)
def test_a_missing_package_names_its_extra(
    tracker: type, config: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"pip install 'alignbench\[{tracker.package}\]'"):
        tracker(config, directory=tmp_path, run_name="run", settings={})


def test_a_tracker_that_cannot_start_is_one_clear_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"tracker=tensorboard cannot start: .*tracker=none"):
        TensorBoard(TensorBoardConfig(), directory=tmp_path, run_name="run", settings={})


def test_settings_become_plain_values_under_dotted_keys() -> None:
    nested = {"a": {"b": {"c": True}, "d": 1.5}, "e": ["x", 2], "f": Colour.RED, "g": None, "h": Path("p"), "i": {}}
    assert flatten(nested) == {"a.b.c": True, "a.d": 1.5, "e": "x, 2", "f": "RED", "g": "None", "h": "p"}


def test_registering_brings_all_trackers_and_imports_nothing_heavy() -> None:
    registry = plugins.load([EntryPoint("trackers", "alignbench_trackers", "alignbench")])
    assert [c.name for c in registry.of(Kind.TRACKER)] == ["mlflow", "none", "tensorboard", "trackio", "wandb"]
    assert all(c.load() and c.summary for c in registry.of(Kind.TRACKER))
    heavy = "{'torch', 'accelerate', 'numpy', 'huggingface_hub'}"
    packages = "alignbench_trackers, alignbench_hh, alignbench_data"
    check = f"import sys, {packages}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
