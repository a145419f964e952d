"""Checks of a config and of what it builds: the same for every kind of component."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import subprocess
import sys
import textwrap
import typing
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignbench.app import ready
from alignbench.app.config import EvalSettings
from alignbench.optimizer_config import AlgorithmConfig, LabelConfig, OptimizerConfig, PreferenceConfig, RolloutConfig
from alignbench.plugins import Component, Kind
from alignbench.records import Consumes
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken

CONTRACTS: dict[Kind, type] = {**ready.CONTRACTS, Kind.OPTIMIZER: torch.optim.Optimizer, Kind.SCHEDULE: float}
WIRING: dict[Kind, tuple[str, ...]] = {
    Kind.ALGORITHM: ("policy", "updates", "seeds"),
    Kind.MODEL: ("tokenizer", "device", "seeds"),
    Kind.DATA: ("seeds",),
    Kind.REWARD: ("policy", "data", "seeds"),
    Kind.ANNOTATOR: ("data", "seeds"),
    Kind.EVALUATION: (),
    Kind.TRACKER: ("directory", "run_name", "settings"),
    Kind.OPTIMIZER: ("groups", "settings"),
    Kind.SCHEDULE: ("progress",),
    Kind.SAMPLER: ("policy",),
    Kind.STAGE: ("seeds",),
    Kind.FORMAT: (),
}
HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "scipy", "sklearn", "pandas", "polars", "lm_eval")

check = CheckList()
check_algorithm = CheckList()


@check(causes="no docstring at the config, a long one without a first line, or a field without a docstring below it.")
def config_is_documented(component: Component, seed: int) -> None:
    """The config says in one line what the component is, and each of its options has a docstring."""
    if not 10 < len(component.summary) <= 120:
        raise PropertyBroken(
            f"The first line of {component.config.__name__}'s docstring has {len(component.summary)} characters: 11 to 120."
        )
    for schema in component.config.__mro__:
        if not dataclasses.is_dataclass(schema):
            continue
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
        except OSError:
            raise NotApplicable(f"the source of {schema.__name__} cannot be read") from None
        assert isinstance(definition, ast.ClassDef)
        for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation):
                text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if not text:
                    raise PropertyBroken(
                        f"{schema.__name__}.{ast.unparse(statement.target)} has no docstring below it."
                    )


@check(
    causes="a field type that OmegaConf does not know, a field without default, or __post_init__ that changes fields."
)
def config_round_trips(component: Component, seed: int) -> None:
    """The defaults survive OmegaConf and YAML: what a user overrides and what a result records is what was run."""
    schema: Any = component.config
    try:
        default = component.config()
        text = OmegaConf.to_yaml(OmegaConf.structured(component.config))
        merged = OmegaConf.merge(OmegaConf.structured(component.config), OmegaConf.create(text))
        # A default may stand for a key of the run, as "${eval.path}".
        run = OmegaConf.create({"eval": OmegaConf.structured(EvalSettings), "options": merged})
        again = OmegaConf.to_object(run.options)
    except (OmegaConfBaseException, TypeError) as error:
        raise PropertyBroken(f"{component.config.__name__} cannot be made: {' '.join(str(error).split())}.") from error
    if type(again) is component.config:
        fields = [field.name for field in dataclasses.fields(schema)]
        taken = {name: getattr(again, name) for name in fields if str(getattr(default, name)).startswith("${")}
        default = dataclasses.replace(default, **taken)
    if type(again) is not component.config or again != default:
        raise PropertyBroken(f"{default} came back as {again}.")
    if "component" in {field.name for field in dataclasses.fields(schema)}:
        raise PropertyBroken("A field is named `component`: the core keeps the component's name there.")


@check(causes="an import at the top of config.py or __init__.py that belongs into the module of the class.")
def config_imports_nothing_heavy(component: Component, seed: int) -> None:
    """Importing the config imports no torch and the like: every `--help` imports every plugin."""
    code = (
        f"import sys; import {component.config.__module__}\nprint('HEAVY', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise PropertyBroken(f"Importing {component.config.__module__} failed: {done.stderr.strip().splitlines()[-1]}.")
    if heavy := done.stdout.partition("HEAVY")[2].split():
        raise PropertyBroken(f"Importing {component.config.__module__} imports {', '.join(heavy)}.")


@check(
    causes="a missing base class or abstract method, a keyword argument too few, or a second default for the config."
)
def target_keeps_its_contract(component: Component, seed: int) -> None:
    """The target makes an object of its kind's base class from its config and the wiring of its kind."""
    target, contract = component.load(), CONTRACTS[component.kind]
    made = target if inspect.isclass(target) else typing.get_type_hints(target).get("return", object)
    if not issubclass(made, contract):
        raise PropertyBroken(f"{component.target} does not derive from {contract.__name__}.")
    if missing := sorted(getattr(made, "__abstractmethods__", ())):
        raise PropertyBroken(f"{component.target} leaves out {', '.join(missing)}.")
    signature = inspect.signature(target)
    try:
        signature.bind(component.config(), **dict.fromkeys(WIRING[component.kind]))
    except TypeError as error:
        wiring = ", ".join(("config", *WIRING[component.kind]))
        raise PropertyBroken(f"{component.target} cannot be built with {wiring}: {error}.") from error
    if next(iter(signature.parameters.values())).default is not inspect.Parameter.empty:
        raise PropertyBroken("The config has a second default in the signature: its own defaults are the only ones.")


@check_algorithm(
    causes="a base of its own in place of RolloutConfig, PreferenceConfig or LabelConfig, or `consumes` without ClassVar."
)
def algorithm_declares_what_it_consumes(component: Component, seed: int) -> None:
    """An algorithm's config names what it is fed and derives from the base that belongs to it."""
    consumes = getattr(component.config, "consumes", None)
    if not isinstance(consumes, Consumes):
        raise PropertyBroken(f"`consumes` is {consumes!r}.")
    bases = {
        Consumes.NOTHING: AlgorithmConfig,
        Consumes.DEMONSTRATIONS: OptimizerConfig,
        Consumes.ROLLOUTS: RolloutConfig,
        Consumes.PREFERENCES: PreferenceConfig,
        Consumes.LABELS: LabelConfig,
    }
    if not issubclass(component.config, bases[consumes]):
        raise PropertyBroken(f"It consumes {consumes.value} and does not derive from {bases[consumes].__name__}.")
    for kind in (Consumes.ROLLOUTS, Consumes.PREFERENCES, Consumes.LABELS):
        if consumes is not kind and issubclass(component.config, bases[kind]):
            raise PropertyBroken(f"It consumes {consumes.value} and derives from {bases[kind].__name__}.")
    if "consumes" in {field.name for field in dataclasses.fields(component.config)}:
        raise PropertyBroken("`consumes` is a field, so that a user could change it: annotate it ClassVar.")
