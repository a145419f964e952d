"""What `alignbench evaluate-reward` is asked for: a reward source by name, that of a finished run, or what a run's policy prefers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignbench.app.compose import composed, typed
from alignbench.app.config import RunConfig
from alignbench.app.target import finished_record, labels, settings_of, touched
from alignbench.bounds import bounded, check_bounds
from alignbench.errors import UserError, unknown_name
from alignbench.plugins import Kind, registry
from alignbench.results.disk.directory import RESULT
from alignbench.results.disk.environment import config_hash
from alignbench.results.disk.record import MEASURED_REWARD, Identity
from alignbench.results.disk.runs import is_run, locate
from alignbench.selection import Selected

IMPLICIT = "dpo:"
"""Before a run: what its policy prefers, against the model that it started from."""
OF_A_RUN = ("data", "device", "results_dir", "cache", "cache_dir")
"""What can be set where a run's reward is measured; all else is as it was in the run."""
PRIMARY = ("reward/accuracy", "reward/best_of_k", "reward/gold_gain")
"""What two reward sources are compared in: named here, before any is measured."""
NOT_PREFERRED = ("algo", "eval", "judge", "tracker", "budget", "tune", "resume")
"""Settings that say nothing about a reward source."""
OF_FITTING = ("sft", "pretrain", "annotator", "rankings")
"""Settings that say nothing about one that learns from no rankings, where the data brings them."""


@dataclass(frozen=True)
class Measuring:
    """What is measured. `everything`: rankings that it was fitted to as well. `best_of`: responses sampled to each of the prompts of so
    many evaluation `questions`, where the truth is known; 0: none."""

    everything: bool = False
    best_of: int = bounded(64, least=0, most=1e6)
    questions: int = bounded(100, least=1)

    def __post_init__(self) -> None:
        check_bounds(type(self), vars(self), flags=True)
        if self.best_of == 1:
            raise UserError("--best-of 1: choose 2 or more responses, or 0 for none.")


@dataclass(frozen=True)
class RewardTarget:
    """What is measured, and on what. `run`: the finished run that it is from, None where it is made here; `implicit`: that run's policy is
    it. `other_data`: the data are not those that the run was trained on, which are `trained_on`. `names_model`: whether a model was
    chosen; a source that reads texts does without one."""

    label: str
    config: RunConfig
    measuring: Measuring
    yaml: str
    config_hash: str
    run: Path | None = None
    identity: Identity | None = None
    implicit: bool = False
    trained_on: Selected | None = None
    names_model: bool = False

    @property
    def other_data(self) -> bool:
        return self.trained_on is not None and self.trained_on.identity() != self.config.data.identity()

    def as_it_is(self, *, with_model: bool) -> RewardTarget:
        """Known by less: nothing is fitted or sampled, and perhaps no model read."""
        kept = OmegaConf.to_container(OmegaConf.create(self.yaml))
        assert isinstance(kept, dict)
        for key in (*OF_FITTING, *(() if with_model else ("model",))):
            kept.pop(key, None)
        return dataclasses.replace(self, yaml=OmegaConf.to_yaml(OmegaConf.create(kept)), config_hash=config_hash(kept))  # type: ignore[arg-type]


def reward_target(overrides: Sequence[str], measuring: Measuring, results_dir: Path) -> RewardTarget:
    """From `reward=<name>` among the overrides. Raises UserError where it names nothing that can be measured."""
    named = [text.partition("=")[2] for text in overrides if text.partition("=")[0] == "reward"]
    if len(named) != 1 or not named[0].removeprefix(IMPLICIT) or named[0][0] in "[{":
        raise UserError(
            "Say what is measured, once: reward=<a reward source, as learned, hf, judge or length>, reward=<a run>, or "
            f"reward={IMPLICIT}<a run>."
        )
    name, implicit = named[0].removeprefix(IMPLICIT), named[0].startswith(IMPLICIT)
    path = locate(name, results_dir)
    if is_run(path):
        rest = [text for text in overrides if text.partition("=")[0] != "reward"]
        return _of_run(path, rest, measuring, implicit=implicit)
    if implicit or "/" in name or os.path.isdir(path):
        raise UserError(f"reward={named[0]}: {path} is no finished run (it has no {RESULT}).")
    known = [component.name for component in registry().of(Kind.REWARD)]
    given, choices = _composed(overrides, name, known)
    config = typed(given, choices)
    if not config.algo.config.needs_scores:
        raise UserError(f"algo={config.algo.label} learns from no reward: leave algo out, none is trained here.")
    chosen = touched(overrides)
    target = RewardTarget(config.reward.label, config, measuring, "", "", names_model="model" in chosen)
    return _with_settings(target, OmegaConf.to_container(OmegaConf.create(config.yaml)))  # type: ignore[arg-type]


def _composed(overrides: Sequence[str], name: str, known: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    try:
        return composed(overrides)
    except UserError as error:
        if name not in known and name in str(error):
            raise unknown_name("reward", name, [*known, "<a run>", f"{IMPLICIT}<a run>"]) from error
        raise


def _of_run(path: Path, overrides: Sequence[str], measuring: Measuring, *, implicit: bool) -> RewardTarget:
    record = finished_record(path)
    if record.identity.algo == MEASURED_REWARD:
        raise UserError(
            f"{path} is the measure of a reward, and trained none: name the run that did, or the reward source."
        )
    if record.baseline:
        raise UserError(f"{path} is the SFT model of a run: name the run, {path.parent}.")
    if foreign := sorted(touched(overrides) - set(OF_A_RUN)):
        raise UserError(
            f"{foreign[0]}: a run's reward is measured as it is. What can be set are {', '.join(OF_A_RUN)}."
        )
    given, choices = composed(overrides)
    settings = settings_of(path)
    who = record.identity
    names = choices | labels(who)
    for key in {*OF_A_RUN, *NOT_PREFERRED} - {"data", "algo", "budget"}:
        settings[key] = given[key]
    trained_on = typed(settings, names).data
    if "data" in touched(overrides):
        settings["data"], names["data"] = given["data"], choices["data"]
    config = typed(settings, names)
    if not implicit and not config.algo.config.needs_scores:
        raise UserError(
            f"{path.name} learnt from no reward: reward={IMPLICIT}{path.name} measures what its policy prefers."
        )
    if implicit and (config.imitates or config.algo.config.implicit_reward() is None):
        raise UserError(
            f"{path.name} trained no policy beyond its SFT model: it prefers nothing by itself. Name a run that did."
        )
    label = f"{config.algo.label}'s policy" if implicit else config.reward.label
    target = RewardTarget(label, config, measuring, "", "", path, who, implicit, trained_on, names_model=True)
    return _with_settings(target, OmegaConf.to_container(settings))  # type: ignore[arg-type]


def _with_settings(target: RewardTarget, settings: Mapping[str, Any]) -> RewardTarget:
    """The settings that the row is known by. Its hash holds also those of the algorithm whose policy is measured."""
    measured = dataclasses.asdict(target.measuring)
    kept: dict[str, Any] = {key: value for key, value in settings.items() if key not in NOT_PREFERRED}
    kept |= {"measure": measured, "eval": {"primary": list(PRIMARY)}}
    if target.implicit:
        kept = {key: value for key, value in kept.items() if key != "reward"}
    told = kept | ({"algo": settings.get("algo")} if target.implicit else {})
    return dataclasses.replace(target, yaml=OmegaConf.to_yaml(OmegaConf.create(kept)), config_hash=config_hash(told))
