"""What a nat of KL costs, where the data knows it: there every algorithm is given the same problem.

The data's config names the option that says it (`kl_price: ClassVar[str] = "beta"` of the exact world); that of an algorithm names its
own, or has none (see `AlgorithmConfig.kl_price`). The algorithm's default is then the data's price; what a preset or the user says comes first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignbench.app.config import COMPONENT
from alignbench.errors import UserError
from alignbench.plugins import Component, Kind, registry
from alignbench.records import Consumes
from alignbench.selection import Selected

COEFFICIENTS = ("kl_coef", "beta", "tau")
"""How algorithms name the price of one nat, where their config does not say which option it is."""


def option_of(schema: Any) -> str | None:
    """The option of an algorithm's config that is the price of one nat; empty where it has none, None where nothing tells."""
    if (told := getattr(schema, "kl_price", None)) is not None:
        return str(told)
    if schema.consumes in (Consumes.DEMONSTRATIONS, Consumes.NOTHING):
        return ""
    known = {field.name for field in dataclasses.fields(schema)}
    return next((name for name in COEFFICIENTS if name in known), None)


def price_of(algo: str) -> str | None:
    """The option of an installed algorithm that is the price of one nat, as `option_of`; None where the algorithm is not installed."""
    component = registry().components.get((Kind.ALGORITHM, algo))
    return option_of(component.config) if component else None


def set_default(node: DictConfig, component: Component) -> None:
    """The price's default, of a schema of the configuration, follows the data."""
    if component.kind is Kind.ALGORITHM and (option := option_of(component.config)):
        written: Any = OmegaConf.to_container(node, resolve=False)
        default = written.get(option)
        if default is None or (isinstance(default, int | float) and not isinstance(default, bool)):
            node[option] = f"${{kl_price:{'null' if default is None else default}}}"


def _price(default: Any, _root_: DictConfig) -> Any:
    """`${kl_price:0.1}`: the data's price of one nat, or this where it knows none."""
    data = _root_.get("data")
    component = registry().components.get((Kind.DATA, data.get(COMPONENT))) if isinstance(data, DictConfig) else None
    option = getattr(component.config, "kl_price", "") if component else ""
    return data[option] if option else default


OmegaConf.register_new_resolver("kl_price", _price, replace=True)


def settled(cfg: DictConfig) -> None:
    """Writes what the defaults come to into a composed configuration, for people to read."""
    for node in cfg.values():
        written: Any = OmegaConf.to_container(node) if isinstance(node, DictConfig) else {}
        for key, text in written.items():
            if str(text).startswith("${kl_price:"):
                node[key] = node[key]


def check_price(algo: Selected, data: Selected) -> None:
    """Raises UserError where the data sets a price that cannot reach the algorithm: it would be measured by a problem that it was not given."""
    if (option := getattr(data.config, "kl_price", "")) and option_of(type(algo.config)) is None:
        raise UserError(
            f"algo={algo.label} does not say which of its options is the price of one nat of KL, which data={data.label} sets "
            f'(data.{option}): its config needs kl_price: ClassVar[str | None] = "<option>", or "" where no option is.'
        )
