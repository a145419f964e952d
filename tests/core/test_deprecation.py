"""Old names: each works with one warning that says the new one, wherever it is given, and is gone when it was said to be."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import ClassVar

import pytest
from hydra.core.config_store import ConfigStore

import alignbench
from alignbench import (
    Direction,
    MetricSpec,
    Register,
    Renamed,
    RolloutConfig,
    UserError,
    bounded,
    deprecation,
    hookimpl,
)
from alignbench import functional as functional_module
from alignbench.app.compose import load_config
from alignbench.deprecation import RenamedWarning, former_names, former_options, present
from alignbench.plugins import Kind, registry, resolve
from alignbench.selection import select, with_defaults


@dataclass
class Base(RolloutConfig):
    """An algorithm whose options were renamed."""

    former_options: ClassVar[Mapping[str, Renamed]] = {"kl": Renamed("kl_coef", "0.3")}

    kl_coef: float = bounded(0.5, least=0, most=10)
    """Price of one nat."""


@dataclass
class Config(Base):
    """An algorithm that was renamed, and one of its options again."""

    former_options: ClassVar[Mapping[str, Renamed]] = {"clip": Renamed("clip_ratio", "0.4")}
    former_names: ClassVar[Mapping[str, str]] = {"old_algo": "0.3"}

    clip_ratio: float = 0.2
    """How far."""


@dataclass
class MeasureConfig:
    """An evaluation that was renamed."""

    former_options: ClassVar[Mapping[str, Renamed]] = {"count": Renamed("limit", "0.3")}
    former_names: ClassVar[Mapping[str, str]] = {"old_measure": "0.3"}

    limit: int = 3
    """Of whatever."""


@dataclass
class StairsConfig:
    """A schedule that was renamed."""

    former_options: ClassVar[Mapping[str, Renamed]] = {"steps": Renamed("stairs", "0.3")}
    former_names: ClassVar[Mapping[str, str]] = {"old_stairs": "0.3"}

    stairs: int = 4
    """How many."""


class Measure(alignbench.Evaluation):
    def __init__(self, config: MeasureConfig) -> None:
        pass

    def specs(self) -> list[MetricSpec]:
        return [MetricSpec("measure/x", Direction.HIGHER)]

    def evaluate(self, subject: alignbench.Subject) -> list[alignbench.ExampleScore]:
        return []


class Plugin:
    @hookimpl
    def register_algorithms(self, register: Register) -> None:
        register("new_algo", Config, "alignbench.testing.tabular:TabularPolicy")

    @hookimpl
    def register_evaluations(self, register: Register) -> None:
        register("new_measure", MeasureConfig, "tests.core.test_deprecation:Measure")

    @hookimpl
    def register_schedules(self, register: Register) -> None:
        register("new_stairs", StairsConfig, "tests.core.test_deprecation:Measure")


PLUGIN = Plugin()


@pytest.fixture(autouse=True)
def renamed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin above, and no class that a run would import: what is looked at is the configuration."""
    point = EntryPoint("renamed", "tests.core.test_deprecation:PLUGIN", "alignbench")
    monkeypatch.setattr("alignbench.plugins.entry_points", lambda group: [*entry_points(group=group), point])
    monkeypatch.setattr("alignbench.app.compose.check_ready", lambda config: None)
    registry.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RenamedWarning)
        yield
    registry.cache_clear()
    for name in ("new_algo", "old_algo"):
        ConfigStore.instance().repo["algo"].pop(f"{name}.yaml", None)


def says(*words: str) -> pytest.WarningsRecorder:
    return pytest.warns(RenamedWarning, match="(?s)" + ".*".join(words))  # type: ignore[return-value]


# An option


@pytest.mark.parametrize(
    ("given", "name", "value", "words"),
    [
        ("algo.kl=0.7", "kl_coef", 0.7, (r"algo\.kl is now algo\.kl_coef", r"0\.3 no longer")),
        ("algo.clip=0.3", "clip_ratio", 0.3, (r"algo\.clip is now algo\.clip_ratio", r"0\.4 no longer")),
    ],
)
def test_an_override_by_an_options_old_name(given: str, name: str, value: float, words: tuple[str, ...]) -> None:
    plain = load_config(["algo=new_algo", f"algo.{name}={value}"])
    with says(*words):
        found = load_config(["algo=new_algo", given])
    assert getattr(found.algo.config, name) == value
    assert (found.yaml, found.hash) == (plain.yaml, plain.hash), "rows of both names are seeds of one"


def test_a_preset_by_an_options_old_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignbench.app import compose

    (tmp_path / "conf").symlink_to(compose.conf_dir())
    folder = tmp_path / "added" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /algo: old_algo\nalgo:\n  kl: 0.25\n", encoding="utf-8"
    )
    with pytest.warns(RenamedWarning) as caught:
        found = load_config([f"hydra.searchpath=[{tmp_path / 'added'}]", "experiment=mine"])
    assert (found.algo.label, found.algo.config.kl_coef) == ("new_algo", 0.25)
    said = " ".join(str(one.message) for one in caught)
    assert "algo=old_algo is now algo=new_algo" in said
    assert "algo.kl is now algo.kl_coef" in said


def test_nothing_of_old_names_is_left_where_none_is_given() -> None:
    found = load_config(["algo=new_algo", "eval.families=[new_measure]"])
    assert "renamed" not in found.yaml
    assert "kl:" not in found.yaml
    assert "count" not in found.yaml


def test_its_range_holds_under_the_old_name_too() -> None:
    with says("algo.kl is now"), pytest.raises(UserError, match=r"algo\.kl_coef=11\.0 must be 0 to 10"):
        load_config(["algo=new_algo", "algo.kl=11"])


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(UserError, match=r"algo\.kl and algo\.kl_coef are the same option: give algo\.kl_coef alone"):
        load_config(["algo=new_algo", "algo.kl=0.7", "algo.kl_coef=0.6"])


def test_options_of_a_component_that_another_names() -> None:
    with says(r"algo\.lr_schedule_options\.steps is now algo\.lr_schedule_options\.stairs"):
        chosen = select("schedule", "new_stairs", {"steps": 7}, where="algo.lr_schedule_options")
    assert chosen.config == StairsConfig(7)
    with says(r"schedule\.steps is now schedule\.stairs"):
        component = with_defaults(resolve("new_stairs"), {"steps": 9}, where="schedule")
    assert component.config().stairs == 9


def test_options_of_an_evaluation() -> None:
    with says(r"eval\.options\.new_measure\.count is now eval\.options\.new_measure\.limit"):
        found = load_config(["eval.families=[new_measure]", "eval.options.new_measure.count=5"])
    (chosen,) = found.evaluations
    assert chosen.config.limit == 5


def test_a_class_that_derives_has_the_old_options_and_not_the_old_names() -> None:
    assert set(former_options(Config)) == {"kl", "clip"}
    assert set(former_options(Base)) == {"kl"}

    @dataclass
    class Derived(Config):
        pass

    assert former_names(Config) == {"old_algo": "0.3"}
    assert former_names(Derived) == {}
    assert present(Derived, {"kl_coef": 1.0}, "algo") == {"kl_coef": 1.0}


# A component's name


def test_a_choice_by_its_old_name() -> None:
    plain = load_config(["algo=new_algo"])
    with says("algo=old_algo is now algo=new_algo", r"0\.3 no longer"):
        found = load_config(["algo=old_algo"])
    assert (found.algo.label, found.hash) == ("new_algo", plain.hash)


def test_by_its_old_name_in_whatever_asks_the_registry() -> None:
    with says("schedule=old_stairs is now schedule=new_stairs"):
        assert select("schedule", "old_stairs", {}, where="x").component.name == "new_stairs"
    with says("schedule=old_stairs is now"):
        assert resolve("schedule=old_stairs").name == "new_stairs"
    with says("evaluation=old_measure is now"):
        found = load_config(["eval.families=[old_measure]"])
    assert [chosen.label for chosen in found.evaluations] == ["new_measure"]


def test_an_old_name_is_not_among_the_choices() -> None:
    with pytest.raises(UserError, match="Unknown schedule 'nope'") as caught:
        registry().get(Kind.SCHEDULE, "nope")
    assert "old_stairs" not in str(caught.value)


# A name of the door


@pytest.mark.parametrize(
    "module", ["alignbench", "alignbench.functional", "alignbench.pretrained", "alignbench.testing"]
)
def test_a_name_of_the_door(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(deprecation.MOVED, f"{module}.gone", Renamed("alignbench.functional.masked_sum", "0.3"))
    names: dict[str, object] = {}
    with says(rf"{module}\.gone is now alignbench\.functional\.masked_sum", "alignbench 0.3") as caught:
        exec(compile(f"from {module} import gone", "plugin.py", "exec"), names)
    assert names["gone"] is functional_module.masked_sum
    assert {one.filename for one in caught} == {"plugin.py"}, "the place that is to be changed"
    with pytest.raises(ImportError, match="cannot import name 'never'"):
        exec(f"from {module} import never")


# That nothing is kept for ever


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")[:2]))


def test_no_old_name_is_kept_longer_than_promised() -> None:
    """One minor version: the table is emptied as the version goes up, or this test says what has to go."""
    now = version(alignbench.__version__)
    late = [old for old, renamed in deprecation.MOVED.items() if version(renamed.until) <= now]
    for component in registry().components.values():
        if component.distribution == "alignbench":
            untils = {old: one.until for old, one in former_options(component.config).items()}
            untils |= former_names(component.config)
            late += [f"{component.name}.{old}" for old, until in untils.items() if version(until) <= now]
            fields = {field.name for field in dataclasses.fields(component.config)}
            assert {one.new for one in former_options(component.config).values()} <= fields
    assert late == []
