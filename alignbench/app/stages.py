"""The stages of one's own that a configuration names, with their options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignbench.app.config import Settings
from alignbench.errors import UserError, unknown_name
from alignbench.plugins import Kind, registry
from alignbench.records.stages import StagePlace
from alignbench.selection import Selected, instance

STAGES, OPTIONS = "stages", "stage_options"


def add_options(settings: DictConfig) -> None:
    """Every stage's own, so that a wrong name or type fails at the command line."""
    for component in registry().of(Kind.STAGE):
        settings[OPTIONS][component.name] = OmegaConf.structured(component.config)


def selected(settings: Settings) -> tuple[Selected, ...]:
    """Those that were chosen, in their order. Raises UserError for a name or an option that there is not."""
    known = [component.name for component in registry().of(Kind.STAGE)]
    if odd := [str(name) for name in settings.stage_options if name not in known]:
        raise unknown_name("stage", odd[0], known, where=OPTIONS)
    if odd := [name for name in settings.stages if name not in known]:
        raise unknown_name("stage", str(odd[0]), known, where=STAGES)
    if len(set(settings.stages)) < len(settings.stages):
        raise UserError(f"{STAGES} names a stage twice: {', '.join(settings.stages)}.")
    return tuple(_selected(settings, name) for name in settings.stages)


def _selected(settings: Settings, name: str) -> Selected:
    component, where = registry().get(Kind.STAGE, name), f"{OPTIONS}.{name}"
    options = settings.stage_options.get(name, {})
    if not isinstance(options, Mapping):
        raise UserError(f"{where} holds options by name, as {where}.share=0.5: leave it out for the defaults.")
    return Selected(component, name, instance(where, component.config, options))


def keep_chosen(cfg: DictConfig, chosen: Sequence[Selected]) -> None:
    """Leaves the options of those alone; a run without any is named as if there were no stages to choose."""
    options = {one.label: dataclasses.asdict(one.config) for one in chosen}
    for key, value in ((STAGES, list(options)), (OPTIONS, options)):
        cfg.pop(key, None)
        if chosen:
            cfg[key] = value


def before_sft(chosen: Sequence[Selected]) -> dict[str, Any]:
    """Of the settings that name an SFT model: the stages that it depends on, where there are some."""
    before = [one for one in chosen if one.component.config.place is StagePlace.BEFORE_SFT]  # type: ignore[attr-defined]
    own = [[one.label, dataclasses.asdict(one.config)] for one in before]
    return {STAGES: own} if own else {}
