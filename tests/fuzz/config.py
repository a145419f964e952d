"""A fuzzer of configuration values: `python -m tests.fuzz.config --count 10000`.

Each case gives one option of one component, one section or one whole command line a value that nobody should give it, as text
through Hydra's own grammar, loads the configuration and builds what can be built of it without training. It must be refused in one
line, or be loaded. Cases follow from `--seed` alone."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import math
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

from alignbench_world.config import WorldConfig
from alignbench_world.source import WorldData
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from alignbench import Seeds, Split
from alignbench.app.compose import COMPONENT, _node, composed, load_config, register_configs, typed
from alignbench.app.config import Settings
from alignbench.app.options import sections
from alignbench.app.refusals import explain, is_complaint, refuse_missing
from alignbench.bounds import LARGEST, Range, ranges
from alignbench.plugins import Component, Kind, registry
from alignbench.selection import Selected, instance
from tests import tiny
from tests.fuzz.count import Count

SEEDS = Seeds(0)
SIZES = {
    "train_prompts": 50,
    "demonstrations": 50,
    "recorded_rankings": 50,
    "evaluation_questions": 12,
    "evaluation_prompts": 12,
}
"""A data source of a user's size would take long to build, so that none would be built."""
SMALL = ("data.train_prompts=50", "data.demonstrations=50", "data.evaluation_questions=12")
NUMBERS = (
    "0", "-0", "-0.0", "1", "-1", "2", "3", "0.5", "-0.5", "nan", "-nan", "NaN", "inf", "-inf", ".inf", "1e300",
    "-1e300", "1e-300", "1e999", "-1e999", "1e24", "1" + "0" * 24, "9" * 400, "1" * 5000, "9223372036854775808",
    "-9223372036854775809", "1_000", "0x10", "3.7", "1.0", "1.", "07", "+3", "1e", "1,5", "½", "٣",
)  # fmt: skip
WORDS = (
    "", "''", "abc", "null", "true", "no", "[]", "{}", "[1]", "[a]", "[null]", "{a:1}", "{a:{b:1}}", "{1:2}",
    "[[[]]]", "???", "'???'", "${seed}", "${nope}", "${oc.env:NOPE}", "${oc.create:[]}", "${oc.create:{}}",
    "${oc.decode:null}", "${by:1,{}}", "${", "$", "}", '\\', "~nouser/x", "'~nouser/x'", "~", "/nonexistent", "/dev/null",
    "/proc/self/mem", "../..", ".", "a\\nb", "'a\nb'", "'\x00'", "\x1b[31m", "ä", "’", "\ud800", "a" * 5000,
    "[" * 300, "[" * 60 + "]" * 60, "{a:" * 60 + "1" + "}" * 60, "http://[", "os:system", "x:y", ":", "auto", "none",
    "int(nan)", "float(1)", "choice(1,2)", "range(0,9)", "str([1])", "glob(*)", "1,2", "a b", "a=b", "'", '"', "#",
    "%s", "{0}",
)  # fmt: skip
LINES = (
    "~eval", "~seed", "~algo", "~data", "~model", "~rankings", "~budget", "~hydra", "~algo.kl_coef",
    "~eval.families", "~x", "+x=1", "++x=1", "", "=", "==", "a", ".", ".=1", "algo.=1", "algo..x=1", "@=",
    "algo@=ppo", "algo@x=ppo", "algo@sft=dpo", "algo@sft=ppo", "algo@pretrain=dpo", "algo@pretrain=kto",
    "algo=[ppo]", "algo=[ppo,dpo]", "algo={}", "algo={a:1}", "algo=null", "algo=nope", "algo=''", "model=[]",
    "model={}", "data=hh", "data=exact", "data=preferences", "data=arithmetic", "annotator=exact",
    "annotator=recorded", "annotator=null", "reward=hf", "reward=judge", "reward=mix", "reward=function",
    "reward@judge=judge", "reward@judge=mix", "reward@judge=[]", "tracker=nope", "eval=nope", "eval=quick",
    "experiment=nope", "gpu=nope", "tuned@algo=nope", "+algo=dpo", "+algo.x=1", "++algo.component=dpo",
    "algo.component=null", "algo.component=[1]", "algo.component=1", "data.component=world", "eval.families=[]",
    "eval.families=[exact]", "eval.families=[[1]]", "eval.options=null", "eval.options={}", "eval.options=3",
    "eval.options.nope.x=1", "+eval.options.nope.x=1", "++eval.options.diversity=3", "eval.options.diversity=null",
    "eval.options.diversity.limit=null", "eval.points=null", "eval.points={}", "rankings=null", "rankings=[]",
    "budget=3", "tune=null", "tune.metric=[1]", "hydra=null", "hydra.job=null", "hydra.run.dir=null", "defaults=[]",
    "component=x", "resume=x", "device=null", "device=[]", "cache=maybe", "cache_dir=~nouser/x", "results_dir=null",
    "seed=null", "sft=null", "pretrain=[]", "judge=x",
)  # fmt: skip


def near(limits: Range | None, rng: random.Random) -> str:
    """A number at an end of a range, or a little beside it."""
    ends = [end for end in (dataclasses.astuple(limits)[:4] if limits else ()) if end is not None] or [0.0, LARGEST]
    end = rng.choice(ends)
    return str(
        rng.choice(
            (end, int(end), end + 1, end - 1, math.nextafter(end, math.inf), math.nextafter(end, -math.inf), -end)
        )
    )


def value(limits: Range | None, rng: random.Random) -> str:
    pool = rng.random()
    if pool < 0.35:
        return near(limits, rng)
    if pool < 0.7:
        return rng.choice(NUMBERS)
    if pool < 0.97:
        return rng.choice(WORDS)
    return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x300)))) for _ in range(rng.randrange(1, 9)))


@functools.cache
def parser() -> OverridesParser:
    return OverridesParser.create()


def applied(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """What Hydra makes of the overrides after it has composed `cfg`."""
    found = copy.deepcopy(cfg)
    try:
        ConfigLoaderImpl._apply_overrides_to_config(parser().parse_overrides(overrides), found)
        refuse_missing(found)
    except Exception as error:
        if not is_complaint(error):
            raise
        raise explain(error, overrides) from error
    return found


def plain(cfg: DictConfig) -> Any:
    """Interpolations resolved, as `typed` begins."""
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise explain(error) from error


@functools.cache
def node(component: Component) -> DictConfig:
    found = _node(component) if component.kind is not Kind.EVALUATION else OmegaConf.structured(component.config)
    with open_dict(found):
        found[COMPONENT] = component.name
    whole = OmegaConf.create({"seed": 0, "algo": found})
    OmegaConf.set_struct(whole, True)
    return whole


@functools.cache
def world() -> WorldData:
    return WorldData(WorldConfig(train_prompts=50, demonstrations=50, evaluation_questions=12), seeds=SEEDS)


@functools.cache
def settings() -> DictConfig:
    found = OmegaConf.structured(Settings)
    OmegaConf.set_struct(found, True)
    return found


@functools.cache
def base() -> tuple[DictConfig, dict[str, str]]:
    return composed(list(SMALL))


def component_case(rng: random.Random) -> tuple[str, Callable[[], object]]:
    component = rng.choice(tuple(registry().components.values()))
    names = [f.name for f in dataclasses.fields(component.config)] or ["x"]
    given = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = (
            rng.choice(names)
            if rng.random() < 0.98
            else rng.choice(("x", "component", names[0].upper(), names[0] + ".a"))
        )
        given.append(f"algo.{name}={value(ranges(component.config).get(name), rng)}")

    small = [] if component.kind is not Kind.DATA else [f"algo.{name}={SIZES[name]}" for name in names if name in SIZES]

    def load() -> None:
        values = plain(applied(node(component), [*small, *given]).algo)
        values.pop(COMPONENT)
        build(Selected(component, component.name, instance("algo", component.config, values)), rng)

    return f"{component.kind.value}={component.name} {' '.join(given)}", load


def build(chosen: Selected, rng: random.Random) -> None:
    """What can be built in a moment: no hub, no large model, no second process."""
    kind, config, name = chosen.component.kind, chosen.config, chosen.component.name
    if kind is Kind.DATA and max(getattr(config, size, 0) for size in SIZES) < 1000:
        data = chosen.build(seeds=SEEDS)
        data.counts()
        for split in Split:
            data.prompts(split)
    elif kind is Kind.ANNOTATOR:
        chosen.build(data=world(), seeds=SEEDS)
    elif kind is Kind.EVALUATION and name != "tasks":  # lm-eval's tasks take minutes to be listed
        chosen.build().specs()
    elif kind is Kind.REWARD:
        source = chosen.load()
        source.check_data(config, world())
        source.needs_rankings(config)
        if name in ("length", "gold", "function"):
            chosen.build(policy=policy(), data=world(), seeds=SEEDS)
    elif kind is Kind.ALGORITHM and rng.random() < 0.2:
        model = tiny.scratch()
        model.freeze_reference()  # as a run has it by then
        chosen.build(policy=model, updates=2, seeds=SEEDS)
    elif kind is Kind.MODEL and hasattr(config, "hidden_size"):
        weights = config.num_layers * config.hidden_size * (4 * config.hidden_size + 3 * config.intermediate_size)
        if weights < 1e6:
            chosen.build(tokenizer=tiny.letters(), device=tiny.CPU, seeds=SEEDS)


@functools.cache
def policy() -> Any:
    return tiny.scratch()


def section_case(rng: random.Random) -> tuple[str, Callable[[], object]]:
    where, schema = rng.choice(list(sections(Settings)))
    name = rng.choice([f.name for f in dataclasses.fields(schema)])
    given = f"{f'{where}.{name}'.lstrip('.')}={value(ranges(schema).get(name), rng)}"

    def load() -> None:
        instance("", Settings, plain(applied(settings(), [given])))

    return given, load


def line_case(rng: random.Random) -> tuple[str, Callable[[], object]]:
    """A whole command line, composed as the command does."""
    given = [rng.choice(LINES)]
    if rng.random() < 0.5:
        given.append(rng.choice((rng.choice(LINES), f"{rng.choice(list(SECTIONS))}={value(None, rng)}")))
    return " ".join(given), lambda: load_config(given)


def whole_case(rng: random.Random) -> tuple[str, Callable[[], object]]:
    """Several values of one composed configuration."""
    cfg, choices = base()
    given = []
    for _ in range(rng.choice((1, 2))):
        slot = rng.choice([key for key in cfg if isinstance(cfg[key], DictConfig)])
        given.append(f"{slot}.{rng.choice(list(cfg[slot]))}={value(None, rng)}")
    return " ".join(given), lambda: typed(applied(cfg, given), choices)


SECTIONS = (
    "algo",
    "model",
    "data",
    "reward",
    "reward@judge",
    "annotator",
    "eval",
    "tracker",
    "algo@sft",
    "algo.updates",
    "seed",
    "device",
)


def cases(seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    rng = random.Random(seed)
    while True:
        draw = rng.random()
        make = (
            component_case if draw < 0.8 else section_case if draw < 0.95 else whole_case if draw < 0.98 else line_case
        )
        yield make(random.Random(rng.getrandbits(64)))


def fuzz(count: int, seed: int) -> Count:
    """Tries `count` cases."""
    register_configs()
    found = Count()
    for name, load in itertools.islice(cases(seed), count):
        found.attempt(name, load)
    return found


def main() -> int:
    options = argparse.ArgumentParser("python -m tests.fuzz.config", description=__doc__)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    return fuzz(given.count, given.seed).report()


if __name__ == "__main__":
    sys.exit(main())
