"""Old names in a configuration: where Hydra may be given them, and how they become the present ones (see `deprecation`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from alignbench.app.config import COMPONENT, JUDGE, SLOTS
from alignbench.deprecation import former_names, former_options, placeholder, present
from alignbench.plugins import Kind, registry

_CHOICE = re.compile(r"(?P<group>\w+)(@\w+)?=(?P<names>[\w,]+)")


def keep_former(node: DictConfig, schema: type) -> None:
    """Old names of options in a schema: an override, a preset and a recorded run may still give them."""
    with open_dict(node):
        for old, renamed in former_options(schema).items():
            node[old] = placeholder(renamed.new)


def present_choices(overrides: Sequence[str]) -> list[str]:
    """`algo=old` as `algo=new`, so that whatever follows the choice, as settings tuned for it, follows the new name."""
    return [_present(override) for override in overrides]


def _present(override: str) -> str:
    groups = {kind.value: kind for kind in Kind if kind.is_group}
    if not (found := _CHOICE.fullmatch(override)) or found["group"] not in groups:
        return override
    names = [present_name(groups[found["group"]], name) for name in found["names"].split(",")]
    return f"{override.partition('=')[0]}={','.join(names)}"


def present_name(kind: Kind, name: str) -> str:
    """The component's name now; the name itself where it is a preset's, or nobody's."""
    if (kind, name) in registry().components:
        return name
    old = any(name in former_names(component.config) for component in registry().of(kind))
    return registry().get(kind, name).name if old else name


def settle(cfg: DictConfig) -> None:
    """Writes what was given under old names under the present ones, and takes the old ones away."""
    for slot, kind in {**SLOTS, JUDGE: Kind.REWARD}.items():
        node = cfg.get(slot)
        if isinstance(node, DictConfig) and (kind, node.get(COMPONENT)) in registry().components:
            cfg[slot] = _settled(node, registry().get(kind, str(node[COMPONENT])).config, slot)
    families = cfg.eval.get("families")
    if OmegaConf.is_list(families):
        cfg.eval.families = [present_name(Kind.EVALUATION, str(name)) for name in families]
    for component in registry().of(Kind.EVALUATION):
        node = (cfg.eval.get("options") or {}).get(component.name)
        if isinstance(node, DictConfig):
            cfg.eval.options[component.name] = _settled(node, component.config, f"eval.options.{component.name}")


def _settled(node: DictConfig, schema: type, where: str) -> Any:
    if not former_options(schema):
        return node
    values: Any = OmegaConf.to_container(node, resolve=False)
    return present(schema, values, where)
