"""`annotator=auto`, the default: who ranks follows from the data, and is recorded as if it had been named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignbench.app.config import COMPONENT
from alignbench.plugins import Kind, registry
from alignbench.selection import instance

AUTO = "auto"
GROUP = Kind.ANNOTATOR.value


def node() -> DictConfig:
    """What stands for it until the data is known. Open: it takes the settings of whoever it turns out to be."""
    return OmegaConf.create({COMPONENT: AUTO}, flags={"struct": False})


def follow_data(cfg: DictConfig, choices: Mapping[str, str]) -> Mapping[str, str]:
    """Puts the annotator whom the data names (`annotator` of its config) in the place of `auto`, in `cfg` and in the choices.

    With a file of rankings (`annotator.path=`) it is the one who brings them."""
    given, data = (cfg.get(group) for group in (GROUP, Kind.DATA.value))
    if not all(isinstance(chosen, DictConfig) and COMPONENT in chosen for chosen in (given, data)):
        return choices  # the caller says what is missing
    if given[COMPONENT] != AUTO:
        return choices if choices.get(GROUP) != AUTO else {**choices, GROUP: given[COMPONENT]}
    settings: dict[str, Any] = OmegaConf.to_container(given)  # type: ignore[assignment]
    del settings[COMPONENT]
    source = registry().get(Kind.DATA, data[COMPONENT])
    # Data that names nobody, and a file of rankings: whoever brings those that people gave before.
    name = "" if "path" in settings else getattr(source.config, "annotator", "")
    name = name or registry().that(Kind.ANNOTATOR, "brings_recorded").name
    config = instance(GROUP, registry().get(Kind.ANNOTATOR, name).config, settings)
    cfg[GROUP] = {**dataclasses.asdict(config), COMPONENT: name}
    return {**choices, GROUP: name}
