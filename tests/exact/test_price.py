"""`data.beta` of the exact world is the price of one nat for every algorithm, a third party's included."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar

import pytest
from hydra.core.config_store import ConfigStore

from alignbench import PreferenceConfig, Register, RolloutConfig, UserError, bounded, hookimpl, plugins
from alignbench.app.compose import load_config


@dataclass
class ByName(RolloutConfig):
    """A third party's algorithm whose coefficient has the field's name."""

    kl_coef: float = bounded(0.05, least=0)
    """Price of one nat."""


@dataclass
class Declared(RolloutConfig):
    """One whose coefficient has a name of its own."""

    kl_price: ClassVar[str | None] = "leash"

    leash: float = bounded(0.05, least=0)
    """Price of one nat."""


@dataclass
class Without(PreferenceConfig):
    """One that has none, and says so."""

    kl_price: ClassVar[str | None] = ""


@dataclass
class Silent(RolloutConfig):
    """One that does not say."""

    leash: float = bounded(0.05, least=0)
    """Price of one nat, which nobody can know."""


KINDS: Mapping[str, type] = {"by_name": ByName, "declared": Declared, "without": Without, "silent": Silent}


@hookimpl
def register_algorithms(register: Register) -> None:
    for name, config in KINDS.items():
        register(name, config, "alignbench_dpo.offline:DPO")


@pytest.fixture(scope="module", autouse=True)
def third_party() -> Iterator[None]:
    point = EntryPoint("priced", __name__, "alignbench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", lambda group: [*entry_points(group=group), point])
        plugins.registry.cache_clear()
        yield
    plugins.registry.cache_clear()
    for name in KINDS:
        with contextlib.suppress(KeyError):
            del ConfigStore.instance().repo["algo"][f"{name}.yaml"]


@pytest.mark.parametrize(
    ("overrides", "option", "value"),
    [
        (["algo=by_name"], "kl_coef", 1.0),
        (["algo=by_name", "data.beta=0.4"], "kl_coef", 0.4),
        (["algo=by_name", "data.beta=0.4", "algo.kl_coef=0.7"], "kl_coef", 0.7),
        (["algo=declared", "data.beta=0.4"], "leash", 0.4),
        (["algo=by_name", "data=world", "annotator=mild", "eval=quick"], "kl_coef", 0.05),
        (["algo=ppo", "data.beta=0.4"], "kl_coef", 0.4),
        (["algo=ipo", "data.beta=0.4"], "tau", 0.4),
        (["algo=simpo"], "beta", 2.0),
    ],
)
def test_the_data_says_what_a_nat_costs(overrides: list[str], option: str, value: float) -> None:
    assert getattr(load_config(["experiment=exact", *overrides]).algo.config, option) == value


def test_an_algorithm_that_has_no_price_says_so() -> None:
    assert load_config(["experiment=exact", "algo=without"]).algo.label == "without"
    load_config(["experiment=exact", "algo=sft"])
    with pytest.raises(
        UserError, match=r"^algo=silent does not say .* which data=exact sets \(data\.beta\): .*kl_price"
    ) as error:
        load_config(["experiment=exact", "algo=silent"])
    assert "\n" not in str(error.value)
    load_config(["algo=silent"])  # where nobody sets a price there is nothing to say
