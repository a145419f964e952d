"""What an evaluation or an export is asked for: a finished run, or a model that was trained elsewhere, and its configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from alignbench.app.compose import composed, typed
from alignbench.app.config import RunConfig
from alignbench.app.overrides import quoted
from alignbench.errors import UserError
from alignbench.plugins import Component, Kind, registry
from alignbench.results.disk.directory import CONFIG
from alignbench.results.disk.environment import config_hash
from alignbench.results.disk.record import Identity, RunRecord, Status
from alignbench.results.disk.runs import read_config, read_record
from alignbench.selection import Selected, one_line

OF_EVALUATION = ("eval", "judge", "device", "tracker", "results_dir", "cache", "cache_dir", "resume", "tune")
"""Settings of this command; all others are those of the run that is evaluated."""
OF_TRAINING = ("algo", "sft", "pretrain", "annotator", "rankings", "reward", "budget")
"""Settings that say nothing about a model that was trained elsewhere."""
ELSEWHERE = "elsewhere"
"""What stands for the algorithm of such a model."""


@dataclass(frozen=True)
class Target:
    """What is evaluated. `run`: the finished run that it is from, None for a model that was trained elsewhere, whose `name`
    labels its row. `asks_prompts`: whether a data source was chosen; without one questionnaires alone are asked."""

    name: str
    config: RunConfig
    yaml: str
    config_hash: str
    run: Path | None = None
    identity: Identity | None = None
    asks_prompts: bool = True


def of_run(path: Path, overrides: Sequence[str]) -> Target:
    """The run's own settings, and those of the evaluation from the command line."""
    record = finished_record(path)
    if foreign := sorted(touched(overrides) - set(OF_EVALUATION)):
        raise UserError(
            f"{foreign[0]}: a run is evaluated as it was trained. What can be set are {', '.join(OF_EVALUATION[:-2])}."
        )
    given, choices = composed(overrides)
    settings = settings_of(path)
    for key in OF_EVALUATION:
        settings[key] = given[key]
    who = record.identity
    names = choices | labels(who)
    config = typed(settings, names)
    return Target(names["algo"], config, config.yaml, config.hash, path, who)


def judge_of(path: Path) -> Selected | None:
    """Whom a finished run had as judge, which `of_run` leaves to the command line."""
    settings = settings_of(path)
    given, choices = composed(())
    settings["eval"] = given["eval"]  # of a judge alone is asked
    return typed(settings, choices | labels(finished_record(path).identity)).judge


def labels(who: Identity) -> dict[str, str]:
    """What was chosen of each kind, as the run's record names it."""
    names = {"algo": who.algo_label or who.algo, "model": who.model, "data": who.data}
    return names | {kind: name for kind, name in (("annotator", who.annotator), ("reward", who.reward)) if name}


def finished_record(path: Path) -> RunRecord:
    """Raises UserError for a run that did not finish."""
    record = read_record(path)
    if record.status is not Status.FINISHED:
        raise UserError(
            f"{path} is {record.status.value}, not finished: alignbench resume {path.name} goes on with it."
        )
    return record


def settings_of(path: Path) -> DictConfig:
    """The configuration that a run was started with."""
    text = read_config(path / CONFIG)
    try:
        settings = OmegaConf.create(text)
    except Exception as error:  # PyYAML raises all kinds: ValueError for 2026-02-30, KeyError for `!!bool maybe`
        raise UserError(f"{path / CONFIG} cannot be read: {one_line(str(error))}.") from error
    if not isinstance(settings, DictConfig):
        raise UserError(f"{path / CONFIG} is not the configuration of a run.")
    return settings


def of_model(name: str, overrides: Sequence[str]) -> Target:
    """A checkpoint by folder or hub id, in the model component that the user chose, or in the one that reads any."""
    named = touched(overrides)
    if useless := sorted(named & set(OF_TRAINING)):
        raise UserError(f"{useless[0]}: {name} is evaluated as it is, and not trained.")
    chosen = [] if any(text.startswith("model=") for text in overrides) else [f"model={_reader().name}"]
    given, choices = composed([*chosen, f"model.path={quoted(name)}", *overrides])
    config = typed(given, choices)
    plain = OmegaConf.create(config.yaml)
    kept = {key: value for key, value in OmegaConf.to_container(plain).items() if key not in OF_TRAINING}  # type: ignore[union-attr]
    if "data" not in named:
        kept["data"] = None
    label = Path(name).name
    return Target(
        label,
        dataclasses.replace(config, model=dataclasses.replace(config.model, label=label)),
        OmegaConf.to_yaml(OmegaConf.create(kept)),
        config_hash(kept),  # type: ignore[arg-type]
        asks_prompts="data" in named,
    )


def touched(overrides: Sequence[str]) -> set[str]:
    """The top-level settings that overrides touch: `reward@judge=hf` sets the judge."""
    keys = [text.partition("=")[0].lstrip("+~") for text in overrides]
    return {(key.partition("@")[2] or key).partition(".")[0] for key in keys}


def _reader() -> Component:
    """The model component that reads a checkpoint from any path."""
    found = [component for component in registry().of(Kind.MODEL) if hasattr(component.config, "path")]
    if len(found) != 1:
        names = ", ".join(component.name for component in found) or "none"
        raise UserError(f"Say which model component reads it: model=<name>. Those that take a path: {names}.")
    return found[0]
