"""Every number of a configuration has a range, which holds wherever a configuration is loaded."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from alignbench import UserError, bounded
from alignbench.app.compose import load_config
from alignbench.app.config import Settings
from alignbench.app.options import sections
from alignbench.app.reward_target import Measuring
from alignbench.bounds import LARGEST, Range, check_bounds, ranges, wanted
from alignbench.page.rank.store import Settings as ProjectSettings
from alignbench.page.settings import PageSettings
from alignbench.plugins import registry
from alignbench.selection import instance, with_defaults
from tests.core import options_page
from tests.core.harness import Command

OURS = [c for c in registry().components.values() if c.distribution == "alignbench"]
SCHEMAS = {f"{c.kind.value}={c.name}": c.config for c in OURS}
SCHEMAS |= {where or "the keys": schema for where, schema in sections(Settings)}
SCHEMAS |= {"page": PageSettings, "evaluate-reward": Measuring, "rank": ProjectSettings}
NAN, INF = math.nan, math.inf


def holds_numbers(hint: Any) -> bool:
    """A number, or None, or several of them."""
    return hint in (int, float) or any(holds_numbers(one) for one in typing.get_args(hint))


def numbers(default: Any) -> Iterator[float]:
    held = default.values() if isinstance(default, dict) else default if isinstance(default, list) else [default]
    yield from (one for one in held if one is not None)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_number_has_a_range_and_its_default_lies_inside(schema: type) -> None:
    hints, known = typing.get_type_hints(schema), ranges(schema)
    for option in dataclasses.fields(schema):
        if holds_numbers(hints[option.name]):
            assert option.name in known, f"{option.name} has no range: give its default as bounded(...)"
            default = option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
            assert all(one in known[option.name] for one in numbers(default)), option.name


def beyond(limits: Range) -> list[float]:
    """Numbers that are not in it."""
    ends = [] if limits.least is None else [limits.least - max(abs(limits.least), 1) * 1e-3]
    ends += [] if limits.most is None else [limits.most + max(abs(limits.most), 1) * 1e-3]
    ends += [end for end in (limits.above, limits.below) if end is not None]
    return [NAN, INF, -INF, 10 * LARGEST**2, -LARGEST - 1, *ends, *([0.0] if limits.nonzero else [])]


OF_COMPONENTS = [
    pytest.param(c.config, name, id=f"{c.kind.value}={c.name}-{name}") for c in OURS for name in ranges(c.config)
]


@pytest.mark.parametrize(("schema", "name"), OF_COMPONENTS)
def test_what_is_out_of_range_is_refused_where_it_is_loaded(schema: type, name: str) -> None:
    hint, limits = typing.get_type_hints(schema)[name], ranges(schema)[name]
    for value in beyond(limits):
        if float in (hint, *typing.get_args(hint)):
            given: Any = {"a": value} if typing.get_origin(hint) is dict else value
        elif not math.isfinite(value):
            continue  # OmegaConf takes them for no whole number
        else:
            given = math.floor(value) if value < (limits.least or 0) else math.ceil(value)
        with pytest.raises(UserError, match=rf"^here\.{name}\S*=\S+ must be ") as refused:
            instance("here", schema, {name: given})
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        *("algo.minibatches=0", "algo.adam_eps=-1", "algo.adam_eps=nan", "algo.adam_eps=inf", "algo.weight_decay=-1"),
        *("algo.learning_rate=1e300", "algo.kl_target=nan", "algo.kl_stop=-1", "algo.kl_horizon=nan", "algo.value_coef=-1"),
        *("algo.max_grad_norm=-1", "algo.warmup_updates=-5", "algo.temperature=1e300", "algo.updates=-1", "algo.epochs=0"),
        *("sft.passes=inf", "sft.passes=1e300", "pretrain.weight_decay=nan", "reward.learning_rate=nan", "seed=-1"),
        *("model.initializer_range=-1", "model.initializer_range=nan", "model.initializer_range=inf", "model.num_layers=0"),
        *("model.generation_batch_size=1" + "0" * 24, "rankings.held_out=nan", "rankings.prompts=1", "eval.temperature=inf"),
        *("eval.samples=0", "eval.every=-1", "eval.points.questions=-1", "eval.points.samples=0", "budget.seconds=nan"),
        *("budget.tokens=-1", "eval.options.diversity.bundle=0", "eval.options.diversity.novelty_cosine=1.5"),
        *("data.no_opinion=1.1", "data.evaluation_questions=2000", "eval.frontier_samples=-1", "eval.frontier_prompts=1"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name(line: str) -> None:
    name = line.partition("=")[0].replace(".", r"\.")
    with pytest.raises(UserError, match=rf"^{name}=\S+ must be ") as refused:
        load_config([line])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("limits", "text", "inside", "outside"),
    [
        (Range(), "", (0, -LARGEST, LARGEST), (NAN, INF, -INF, LARGEST + 1)),
        (Range(least=0), "0 or more", (0, LARGEST), (-1e-9, NAN, INF, LARGEST + 1)),
        (Range(above=0), "above 0", (1e-9,), (0, -1)),
        (Range(most=3), "up to 3", (3, -5), (3.1,)),
        (Range(below=3), "below 3", (2.9,), (3,)),
        (Range(least=0, most=1e15), "0 to 1e15", (0, 10**15), (-1, 10**400, INF)),
        (Range(least=0, below=0.5), "0 to below 0.5", (0, 0.49), (0.5,)),
        (Range(above=0, most=1), "above 0, up to 1", (1,), (0,)),
        (Range(above=0, below=1), "above 0 and below 1", (0.5,), (0, 1)),
        (Range(above=0, most=INF), "above 0, up to inf", (INF, 1e300), (0, NAN)),
        (Range(nonzero=True), "other than 0", (-1, 1), (0, -0.0, NAN)),
    ],
)
def test_a_range_and_how_it_is_told(
    limits: Range, text: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    assert str(limits) == text
    assert all(value in limits for value in inside)
    assert not any(value in limits for value in outside)


@dataclass
class Inner:
    share: float = bounded(0.5, least=0, most=1)


@dataclass
class Outer:
    coefficient: float | None = bounded(None, above=0)
    weights: dict[str, float] = bounded({}, nonzero=True)
    inner: Inner = field(default_factory=Inner)


@dataclass
class Derived(Outer):
    coefficient: float | None = 2.0


def test_a_class_that_changes_a_default_keeps_the_range() -> None:
    assert ranges(Derived)["coefficient"] == Range(above=0)
    assert wanted(Derived, "coefficient") == "a number, above 0, or null"
    with pytest.raises(UserError, match=r"^x\.coefficient=0\.0 must be above 0\.$"):
        instance("x", Derived, {"coefficient": 0})


def test_numbers_inside_of_values_and_of_sections_are_checked() -> None:
    with pytest.raises(UserError, match=r"^x\.weights\.a=0\.0 must be other than 0\.$"):
        instance("x", Outer, {"weights": {"a": 0}})
    with pytest.raises(UserError, match=r"^inner\.share=2\.0 must be 0 to 1\.$"):
        instance("", Outer, {"inner": {"share": 2}})
    assert Outer().weights is not Outer().weights, "each config has a mapping of its own"


def test_other_defaults_are_held_to_the_range() -> None:
    component = next(c for c in registry().components.values() if c.name == "ppo")
    with pytest.raises(UserError, match=r"^ppo\.kl_coef=-1\.0 must be 0 to 10000\.$"):
        with_defaults(component, {"kl_coef": -1})
    assert ranges(with_defaults(component, {"kl_coef": 1}).config)["kl_coef"] == ranges(component.config)["kl_coef"]


def test_options_of_a_command_are_told_as_they_are_written() -> None:
    with pytest.raises(UserError, match=r"^--best-of=-1 must be 0 to 1e6\.$"):
        Measuring(best_of=-1)


@dataclass
class UpToFive:
    number: float = bounded(0.0, most=5)


def test_a_bound_that_is_left_is_told_on_its_own_side() -> None:
    for value, told in ((-2e9, "up to 5, from -1e9"), (6, "up to 5")):
        with pytest.raises(UserError, match=rf"must be {told}\.$"):
            check_bounds(UpToFive, {"number": value})


def test_what_a_terminal_would_obey_is_not_repeated() -> None:
    with pytest.raises(UserError, match="cannot be read") as refused:
        load_config(["algo.kl_coef=\x1b[31m"])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "line", ["data.component=3", "data.component=-inf", "cache_dir=" + "a" * 5000, "eval.path=" + "a" * 5000]
)
def test_values_that_ended_in_a_traceback(line: str) -> None:
    with pytest.raises(UserError, match="Unknown data|too long for a path") as refused:
        load_config([line])
    assert len(str(refused.value)) < 300


def test_help_shows_the_range_behind_the_value(command: Command) -> None:
    done = command("--help", "algo=dpo", "algo.beta=0.3", "eval.options.diversity.limit=7")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "algo.beta=0.3   (a number, 1e-6 to 10000)" in lines
    assert "algo.label_smoothing=0   (a number, 0 to below 0.5)" in lines
    assert "eval.options.diversity.limit=7   (a whole number, 0 or more)" in lines
    assert check_bounds(Settings, {"seed": 3}) is None


def test_the_page_of_options_is_what_the_configs_say() -> None:
    assert options_page.PAGE.read_text(encoding="utf-8") == options_page.written(), (
        "docs/options.md is behind: python tests/core/options_page.py"
    )
