import dataclasses
import enum
import importlib.util
import json
import math
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from alignbench_trackers.config import MLflowConfig, NoneConfig, TensorBoardConfig, TrackioConfig, WandbConfig
from alignbench_trackers.trackers import MLflow, NoTracker, TensorBoard, Trackio, Wandb, flatten

from alignbench import Generation, Message, Prompt, UserError, plugins
from alignbench.plugins import Kind

SETTINGS = {"seed": 0, "algo": {"name": "ppo", "learning_rate": 1e-3, "targets": ["a", "b"]}, "none": None}


def said(response: str, **changed: Any) -> Generation:
    prompt = Prompt("q", (Message("user", "2 + 2?"),))
    known = Generation(prompt, 0, response, 3, True, -1.0, -2.25, 0.5, proxy_reward=0.5)
    return dataclasses.replace(known, **changed)


class Colour(enum.Enum):
    RED = "r"


def test_tensorboard_keeps_every_scalar_at_its_step(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = TensorBoard(TensorBoardConfig(), directory=tmp_path, run_name="run", settings=SETTINGS)
    for step in range(3):
        tracker.log({"ppo/reward": step / 2, "ppo/kl": -step}, step)
    tracker.finish()
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("ppo/reward")] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert [e.value for e in events.Scalars("ppo/kl")] == [0.0, -1.0, -2.0]


def test_tensorboard_has_settings_and_responses_in_the_run_itself(tmp_path: Path) -> None:
    """add_hparams would make a second run, in a folder below."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    hparams = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    tracker = TensorBoard(TensorBoardConfig(), directory=tmp_path, run_name="run", settings=SETTINGS)
    tracker.responses([said("<b>*a*|\nb"), said("c", proxy_reward=None, ref_logprob=math.nan)], 7)
    tracker.responses([], 8)
    tracker.finish()
    assert [path.parent for path in (tmp_path / "tensorboard").rglob("*") if path.is_file()] == [
        tmp_path / "tensorboard"
    ]
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    kept = hparams.HParamsPluginData.FromString(
        events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info.hparams
    assert kept["algo.learning_rate"].number_value == 1e-3
    assert kept["algo.targets"].string_value == "a, b"
    (shown,) = events.Tensors("eval/responses/text_summary")
    assert shown.step == 7
    head, rule, first, second = shown.tensor_proto.string_val[0].decode().splitlines()
    assert (head, rule) == ("| prompt | response | reward | kl |", "| --- | --- | --- | --- |")
    assert first == r"| user: 2 \+ 2? | &lt;b&gt;\*a\*\| b | 0.500 | 1.250 |"
    assert second == r"| user: 2 \+ 2? | c |  |  |"


def test_wandb_has_an_axis_for_each_group_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own step only grows: the update of the algorithm comes after that of SFT, which was larger."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = Wandb(WandbConfig(), directory=tmp_path, run_name="run", settings=SETTINGS)
    run, sent, defined = tracker._tracker.tracker, [], []
    monkeypatch.setattr(run, "log", lambda values: sent.append(values))
    monkeypatch.setattr(run, "define_metric", lambda name, **how: defined.append((name, how.get("step_metric"))))
    assert run.config["algo.learning_rate"] == 1e-3
    tracker.log({"sft/loss": 1.0}, 400)
    tracker.log({"train/kl": 0.5}, 1)
    tracker.log({"train/kl": 0.6}, 2)
    tracker.responses([said("a")], 2)
    tracker.finish()
    assert sent[:3] == [
        {"sft/loss": 1.0, "sft/step": 400},
        {"train/kl": 0.5, "train/step": 1},
        {"train/kl": 0.6, "train/step": 2},
    ]
    assert sent[3]["eval/step"] == 2
    assert isinstance(table := sent[3]["eval/responses"], wandb.Table)
    assert (table.columns, table.data) == (["prompt", "response", "reward", "kl"], [["user: 2 + 2?", "a", 0.5, 1.25]])
    assert ("train/*", "train/step") in defined
    assert len(defined) == len(set(defined)) == 6


def test_trackio_keeps_figures_settings_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    del trackio
    tracker = Trackio(TrackioConfig("a project"), directory=tmp_path, run_name="run", settings=SETTINGS)
    tracker.log({"train/kl": 0.5}, 3)
    tracker.responses([said("a")], 3)
    tracker.finish()
    kl, table = storage.get_logs("a project", "run")
    assert (kl["train/kl"], kl["step"]) == (0.5, 3)
    assert table["eval/responses"]["_value"] == [{"prompt": "user: 2 + 2?", "response": "a", "reward": 0.5, "kl": 1.25}]
    assert storage.get_run_config("a project", "run")["algo.learning_rate"] == 1e-3


def test_mlflow_keeps_figures_settings_and_one_growing_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/db")
    monkeypatch.chdir(tmp_path)
    tracker = MLflow(MLflowConfig(), directory=tmp_path, run_name="run", settings=SETTINGS)
    tracker.log({"train/kl": 0.5}, 3)
    for step in (3, 6):
        tracker.responses([said("a")], step)
    run = mlflow.get_run(tracker._tracker.tracker.info.run_id)
    tracker.finish()
    assert run.data.metrics == {"train/kl": 0.5}
    assert run.data.params["algo.learning_rate"] == "0.001"
    (table,) = tmp_path.rglob("eval/responses.json")
    assert json.loads(table.read_text()) == {
        "columns": ["step", "prompt", "response", "reward", "kl"],
        "data": [[3, "user: 2 + 2?", "a", 0.5, 1.25], [6, "user: 2 + 2?", "a", 0.5, 1.25]],
    }


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
