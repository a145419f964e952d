"""From overrides to a typed configuration, and from Hydra's complaints to one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from alignbench import UserError
from alignbench.app import compose
from alignbench.app.compose import SLOTS, composed, conf_dir, load_config, register_configs, typed
from alignbench.app.config import RunConfig
from alignbench.plugins import Component, Kind, registry
from tests.core.harness import Plugin

CONF = Path(conf_dir())
PRESETS = [path.relative_to(CONF) for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "tuned"]
COMPONENTS = sorted(registry().components.values(), key=lambda c: (c.kind.value, c.name))


def named(component: Component) -> str:
    return f"{component.kind.value}={component.name}"


@pytest.fixture(scope="module")
def default() -> RunConfig:
    return load_config([])


# What is chosen


def test_every_group_has_a_default(default: RunConfig) -> None:
    chosen = {slot: getattr(default, slot) for slot in SLOTS}
    assert {slot: found.label for slot, found in chosen.items()} == {
        "algo": "ppo",
        "sft": "sft",
        "pretrain": "sft",
        "model": "tiny",
        "data": "world",
        "reward": "learned",
        "annotator": "mild",
        "tracker": "none",
    }
    assert all(isinstance(found.config, found.component.config) for found in chosen.values())
    assert all(found.component.kind is SLOTS[slot] for slot, found in chosen.items())
    families = ["helpfulness", "sycophancy", "diversity", "optimization", "preferences", "capability", "tasks"]
    assert [found.label for found in default.evaluations] == families
    assert (default.seed, default.device, default.results_dir) == (0, "auto", "results/runs")


INSIDE = {
    Kind.OPTIMIZER: "algo.optimizer",
    Kind.SCHEDULE: "algo.lr_schedule",
    Kind.SAMPLER: "model.sampler",
    Kind.FORMAT: "data.format",
}
"""Kinds that another component's options name."""


@pytest.mark.parametrize("component", COMPONENTS, ids=named)
def test_every_component_can_be_chosen(component: Component) -> None:
    if component.kind is Kind.EVALUATION:
        (found,) = load_config([f"eval.families=[{component.name}]"]).evaluations
    elif component.kind is Kind.STAGE:
        (found,) = typed(*composed([f"stages=[{component.name}]"])).stages
    elif component.kind in INSIDE:
        slot, _, option = INSIDE[component.kind].partition(".")
        of = ["data=preferences"] if slot == "data" else []
        holder = getattr(typed(*composed([*of, f"{slot}.{option}={component.name}"])), slot).config
        (found,) = [used for used in holder.uses() if used.component.kind is component.kind]
    else:
        slot = next(slot for slot, kind in SLOTS.items() if kind is component.kind)
        found = getattr(typed(*composed([named(component)])), slot)  # some want more before they can run
    # Other tests make the registry anew: it is this one's component, not that of when tests were collected.
    assert found.component is registry().get(component.kind, component.name)
    assert found.component == component
    assert found.label == component.name
    assert type(found.config) is component.config


@pytest.mark.parametrize("preset", PRESETS, ids=str)
def test_every_preset_can_be_chosen(preset: Path) -> None:
    group, name = preset.parent.name, preset.stem
    config = typed(*composed([f"{group}={name}"]))
    if group in SLOTS:
        assert getattr(config, group).label == name, "tables show the preset's name"


def test_a_preset_keeps_what_it_does_not_set(default: RunConfig) -> None:
    preset = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "tiny.yaml"))
    assert isinstance(preset, dict)
    plain, own = load_config(["model=scratch"]).model.config, default.model.config
    changed = {k for k, v in dataclasses.asdict(own).items() if v != getattr(plain, k)}
    assert changed <= set(preset) - {"defaults"}
    assert all(getattr(own, key) == value for key, value in preset.items() if key != "defaults")


@pytest.mark.parametrize("slot", ["pretrain", "sft", "reward", "algo"])
def test_settings_tuned_for_a_model_apply_to_it_alone(default: RunConfig, slot: str) -> None:
    name = {"algo": "ppo", "reward": "learned"}.get(slot, slot)
    tuned = OmegaConf.to_container(OmegaConf.load(CONF / "tuned" / f"tiny-{name}.yaml"))
    assert isinstance(tuned, dict)
    own = dataclasses.asdict(getattr(default, slot).config)
    assert {key: own[key] for key in tuned} == tuned
    other = getattr(load_config(["model=scratch"]), slot)
    assert other.config == other.component.config(), "where nothing is tuned the component's own defaults hold"


def test_what_the_user_says_goes_before_everything(default: RunConfig) -> None:
    config = load_config(
        ["algo.updates=7", "algo.kl_coef=1e-2", "sft.updates=9", "eval.options.diversity.self_bleu_prompts=3"]
    )
    assert (config.algo.config.updates, config.algo.config.kl_coef, config.sft.config.updates) == (7, 0.01, 9)
    diversity = next(found for found in config.evaluations if found.label == "diversity")
    assert diversity.config.self_bleu_prompts == 3
    assert config.pretrain == default.pretrain, "sft and pretrain are two choices of one group"


def test_registering_twice_changes_nothing() -> None:
    register_configs()
    before = {group: set(names) for group, names in ConfigStore.instance().repo.items() if isinstance(names, dict)}
    register_configs()
    assert {g: set(n) for g, n in ConfigStore.instance().repo.items() if isinstance(n, dict)} == before


def test_a_plugin_that_comes_later_can_be_chosen(plugin: Plugin) -> None:
    config = load_config(["reward=faulty", "reward.fault=shape", "algo=imitate"])
    assert (config.reward.config.fault, config.algo.config.updates) == ("shape", 100)


# What identifies a run

HASHES = ("hash", "sft_hash", "annotator_hash", "reward_hash")


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["seed=1", "device=cpu", "results_dir=elsewhere", "tracker=tensorboard"], set()),
        (["algo.kl_coef=0.3"], {"hash"}),
        (["annotator=honest"], {"hash", "annotator_hash"}),
        (["rankings.responses=2"], {"hash", "annotator_hash"}),
        (["reward.loss=plackett_luce"], {"hash", "reward_hash"}),
        (["sft.updates=1"], {"hash", "sft_hash"}),
        (["pretrain.updates=1"], {"hash", "sft_hash"}),
        (["model.hidden_size=32"], {"hash", "sft_hash"}),
        (["data.no_opinion=0.5"], {"hash", "sft_hash"}),
        (["eval.samples=2"], {"hash", "sft_hash"}),
        (["eval=standard"], set()),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_hashes_cover_what_can_change_a_number(default: RunConfig, overrides: list[str], changed: set[str]) -> None:
    config = load_config(overrides)
    assert {name for name in HASHES if getattr(config, name) != getattr(default, name)} == changed


def test_tasks_of_lm_eval_reach_the_evaluation_that_asks_them_or_are_refused(tmp_path: Path) -> None:
    named = ["eval.tasks=[arc_easy,hellaswag]", f"eval.path={tmp_path}"]
    asking = next(found.config for found in load_config(named).evaluations if found.label == "tasks")
    assert (asking.names, asking.path) == (["arc_easy", "hellaswag"], str(tmp_path))
    with pytest.raises(UserError, match="read by none"):
        load_config([*named, "eval.families=[diversity]"])


def test_a_recorded_run_is_read_where_its_evaluation_data_has_gone(tmp_path: Path) -> None:
    for option in ("eval.path", "eval.options.capability.path"):
        gone = f"{option}={tmp_path / 'gone'}"
        assert str(tmp_path) in typed(*composed([gone])).yaml
        with pytest.raises(UserError, match=rf"^{option}=\S+gone: there is no such folder\.$"):
            load_config([gone])


def test_options_of_evaluations_that_are_not_run_are_left_out() -> None:
    few = ["eval.families=[sycophancy]"]
    one, other = load_config(few), load_config([*few, "eval.options.diversity.self_bleu_prompts=3"])
    assert one.hash == other.hash
    assert "self_bleu_prompts" not in one.yaml


@pytest.mark.parametrize(
    "overrides", [[], ["algo=sft"], ["model=smollm2", "data=hh", "annotator=recorded", "eval=quick"]]
)
def test_yaml_gives_the_same_configuration_again(overrides: list[str]) -> None:
    config = load_config([*overrides, "seed=3"])
    again = typed(OmegaConf.create(config.yaml), {})
    assert again.hash == config.hash
    assert (again.yaml, again.seed) == (config.yaml, 3)
    assert all(getattr(again, slot).config == getattr(config, slot).config for slot in SLOTS)


# What is refused


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("algo", {"component": "ppo", "kl_coef": "much"}),
        ("algo", {"component": "ppo", "kl": 1}),
        ("algo", {"kl_coef": 1.0}),
        ("algo", None),
        ("algo", "ppo"),
        ("algo", {"component": "none"}),
        ("seed", "one"),
        ("nothing", 1),
        ("eval", {"families": ["diversity"], "options": {"diversity": {"nothing": 1}}}),
        ("eval", {"families": ["diversity"], "options": {"nothing": {}}}),
    ],
)
def test_a_configuration_is_checked_wherever_it_comes_from(default: RunConfig, where: str, value: object) -> None:
    """Hydra's schema is not asked here: `+key=value` and files go past it."""
    cfg = OmegaConf.create(default.yaml)
    cfg[where] = value
    with pytest.raises(UserError) as caught:
        typed(cfg, {})
    assert "\n" not in str(caught.value)


KEYS = [
    "algo",
    "algo.kl_coef",
    "seed",
    "eval.families",
    "+algo.x",
    "~algo.kl_coef",
    "data.nothing",
    "results_dir",
    "eval",
]
VALUES = st.text("ab01.,:=[]{}()'\"\\$~+*/ \t-", max_size=8) | st.sampled_from(
    ["null", "true", "${seed}", "${nope}", "1e400"]
)


# Not shrunk: an example takes a quarter of a second, and is short as it is.
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.sampled_from(KEYS), VALUES)
def test_whatever_is_typed_is_accepted_or_refused_in_one_line(key: str, value: str) -> None:
    try:
        config = load_config([f"{key}={value}"])
    except UserError as error:
        assert str(error).strip()
        assert "\n" not in str(error)
    else:
        assert isinstance(config, RunConfig)


def test_a_fault_of_our_own_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its traceback; what Hydra stumbles over is refused in one line, or as it is where somebody asks for that."""
    with pytest.raises(UserError, match="name of one choice"):
        load_config(["data=${oc.create:[]}"])
    with monkeypatch.context() as asked, pytest.raises(AssertionError):
        asked.setenv("HYDRA_FULL_ERROR", "1")
        load_config(["data=${oc.create:[]}"])
    for fault in (AttributeError("no such thing"), KeyError("x"), ValueError("odd")):

        def broken(overrides: object, fault: Exception = fault) -> None:
            raise fault

        monkeypatch.setattr(compose, "expanded", broken)
        with pytest.raises(type(fault)) as raised:
            load_config([])
        assert raised.value is fault
