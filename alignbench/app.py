"""Hydra ends here: schemas and presets in, a typed RunConfig out."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from alignbench.config import RunConfig, Selected, Settings
from alignbench.errors import AlignbenchError, UserError, unknown_name
from alignbench.plugins import Component, Kind, registry
from alignbench.results.environment import config_hash

Task = Callable[[RunConfig], None]
# What a component's config is kept under; the same names are the config groups. Three of them hold an algorithm.
SLOTS = {
    "algo": Kind.ALGORITHM,
    "sft": Kind.ALGORITHM,
    "pretrain": Kind.ALGORITHM,
    "model": Kind.MODEL,
    "data": Kind.DATA,
    "reward": Kind.REWARD,
    "annotator": Kind.ANNOTATOR,
    "tracker": Kind.TRACKER,
}
COMPONENT = "component"  # the key that says which component a config belongs to, whatever preset it came from


def conf_dir() -> str:
    """The folder of YAML files: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "conf"
    return str(inside if inside.is_dir() else Path(__file__).parent.parent / "conf")


class PresetPath(SearchPathPlugin):
    """Adds the preset folders of plugins to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for package in registry().preset_packages:
            search_path.append(provider=package, path=f"pkg://{package}.conf")


def register_configs() -> None:
    """Stores the schema of every registered component; called again it changes nothing."""
    store = ConfigStore.instance()
    for kind in Kind:
        if kind is not Kind.EVALUATION:
            for component in registry().of(kind):
                store.store(group=kind.value, name=component.name, node=_node(component), provider=component.distribution)
    settings = OmegaConf.structured(Settings)
    with open_dict(settings):
        for component in registry().of(Kind.EVALUATION):
            settings.eval.options[component.name] = OmegaConf.structured(component.config)
    store.store(name="settings", node=settings, provider="alignbench")
    Plugins.instance().register(PresetPath)


def _node(component: Component) -> DictConfig:
    node = OmegaConf.structured(component.config)
    with open_dict(node):
        node[COMPONENT] = component.name
    return node


def typed(cfg: DictConfig, choices: Mapping[str, str]) -> RunConfig:
    """Checks everything once more (`+key=value` goes past Hydra's schema) and builds the RunConfig."""
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[assignment]
    slots = {slot: _selected(cfg, slot, kind, choices) for slot, kind in SLOTS.items()}
    settings = _plain(cfg)
    evaluations = tuple(_evaluation(settings, name) for name in settings.eval.families)
    cfg.eval.options = {chosen.label: cfg.eval.options.get(chosen.label, {}) for chosen in evaluations}
    start = slots["algo"] if slots["algo"].config.consumes.value == "demonstrations" else slots["sft"]
    shared = {key: cfg[key] for key in ("pretrain", "model", "data", "eval")} | {"sft": dataclasses.asdict(start.config)}
    return RunConfig(
        seed=settings.seed,
        device=settings.device,
        results_dir=settings.results_dir,
        **slots,
        rankings=settings.rankings,
        eval=settings.eval,
        evaluations=evaluations,
        yaml=OmegaConf.to_yaml(cfg),
        hash=config_hash(OmegaConf.to_container(cfg)),  # type: ignore[arg-type]
        sft_hash=config_hash(OmegaConf.to_container(OmegaConf.create(shared))),  # type: ignore[arg-type]
        ranking_hash=config_hash({key: OmegaConf.to_container(cfg[key]) for key in ("annotator", "rankings", "reward")}),
    )


def _selected(cfg: DictConfig, slot: str, kind: Kind, choices: Mapping[str, str]) -> Selected:
    values = dict(OmegaConf.to_container(cfg[slot]) or {})  # type: ignore[arg-type]
    component = registry().get(kind, str(values.pop(COMPONENT, "")))
    label = choices.get(slot) or choices.get(f"{kind.value}@{slot}") or component.name
    return Selected(component, label, _instance(slot, component.config, values))


def _evaluation(settings: Settings, name: str) -> Selected:
    component = registry().get(Kind.EVALUATION, name)
    return Selected(component, name, _instance(f"eval.options.{name}", component.config, settings.eval.options.get(name, {})))


def _instance(where: str, schema: type, values: Mapping[str, Any]) -> Any:
    known = [f.name for f in dataclasses.fields(schema)]
    if odd := [str(key) for key in values if key not in known]:
        raise unknown_name("key", odd[0], known, where=where)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(values)))
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {_one_line(str(error))}") from error


def _plain(cfg: DictConfig) -> Settings:
    keys = [f.name for f in dataclasses.fields(Settings)]
    if odd := [str(key) for key in cfg if key not in keys]:
        raise unknown_name("key", odd[0], keys)
    rest = OmegaConf.create({key: None if key in SLOTS else value for key, value in cfg.items()})
    try:
        settings: Settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), rest))  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(_one_line(str(error))) from error
    return settings


def load_config(overrides: Sequence[str]) -> RunConfig:
    """The RunConfig of a list of overrides, without running anything."""
    register_configs()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3", job_name="alignbench"):
            cfg = compose("config", list(overrides), return_hydra_config=True)
            choices = dict(cfg.hydra.runtime.choices)
            with open_dict(cfg):
                del cfg["hydra"]
            return typed(cfg, choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error


def main(task: Task) -> None:
    """Runs `task` on the command line's overrides: once, or once per job of a sweep."""
    register_configs()
    full_errors = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing: the message is ours to word
    errors: list[AlignbenchError] = []

    def job(cfg: DictConfig) -> None:
        register_configs()  # a launcher's worker has Hydra's store but not our registry
        try:
            task(typed(cfg, dict(HydraConfig.get().runtime.choices)))
        except AlignbenchError as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:  # the other jobs of a sweep go on
                print(f"alignbench: error: {error}", file=sys.stderr)
            errors.append(error)

    try:
        hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        if full_errors:
            raise
        raise explain(error) from error
    if len(errors) > 1:
        raise AlignbenchError(f"{len(errors)} runs of the sweep failed; the first: {errors[0]}")
    if errors:
        raise errors[0]


def explain(error: Exception) -> UserError:
    """Hydra's and OmegaConf's many-line messages as one line that lists the choices."""
    text = str(error) + (f"\n{error.__cause__}" if error.__cause__ else "")
    if missing := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, name = missing.groups()
        options = re.search(r"Available options in '[^']+':\n((?:\t.*\n?)+)", text)
        found = [line.strip() for line in options.group(1).splitlines()] if options else []
        return unknown_name(group, name, found) if found else UserError(f"There is no {group}={name}.")
    if wrong := re.search(r"Key '([^']+)' (?:is )?not in '?(\w+)'?", text):
        return _unknown_key(text, wrong.group(1), wrong.group(2))
    return UserError(_one_line(text))


def _unknown_key(text: str, key: str, schema: str) -> UserError:
    full = re.search(r"full_key: (\S+)", text)
    schemas = [c.config for c in registry().components.values()] + [Settings]
    schemas += [f.default_factory for f in dataclasses.fields(Settings) if f.name in ("rankings", "eval")]  # type: ignore[misc]
    fields = next((dataclasses.fields(s) for s in schemas if s.__name__ == schema), dataclasses.fields(Settings))
    where = full.group(1).rpartition(".")[0] if full else ""
    return unknown_name("key", key, [f.name for f in fields], where=where)


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("reference_type", "object_type", "Set the environment"))]
    return "; ".join(kept)
