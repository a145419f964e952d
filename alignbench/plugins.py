"""Discovery of plugins, and the registry of the components that they bring.

Nothing heavy is imported here: a component is a name, a config dataclass and the dotted path of what builds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import importlib
import logging
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distribution, entry_points
from typing import Any

import pluggy

from alignbench import hookspecs
from alignbench.deprecation import former_names, warn
from alignbench.errors import UserError, unknown_name
from alignbench.hookspecs import RunFinished, RunStarted, RunStep
from alignbench.records.stages import STAGE_NEEDS, StagePlace

log = logging.getLogger(__name__)

BUILT_IN = ("alignbench.optimization", "alignbench.commands", "alignbench.results.shown", "alignbench.scaffold")
"""Parts of the core that bring something of a kind: they register as plugins do."""
BLOCK_VARIABLE = "ALIGNBENCH_BLOCK"
HOOK_OF = {RunStarted: "run_started", RunStep: "run_step", RunFinished: "run_finished"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PLAIN = (int, float, str, bool)
_FUNCTION_NAME = re.compile(r"[a-z][a-z0-9-]*")


class Kind(enum.Enum):
    """A component kind: its value is the config group, where it is one, and `hook` the hook that registers it."""

    ALGORITHM = "algo"
    MODEL = "model"
    DATA = "data"
    REWARD = "reward"
    ANNOTATOR = "annotator"
    EVALUATION = "evaluation"
    TRACKER = "tracker"
    OPTIMIZER = "optimizer"
    SCHEDULE = "schedule"
    SAMPLER = "sampler"
    STAGE = "stage"
    FORMAT = "format"

    @property
    def is_group(self) -> bool:
        """Whether one is chosen by `<kind>=` at the command line; others are named in an option of those that use them."""
        named = (Kind.EVALUATION, Kind.OPTIMIZER, Kind.SCHEDULE, Kind.SAMPLER, Kind.STAGE, Kind.FORMAT)
        return self not in named

    @property
    def hook(self) -> str:
        plural = {"algo": "algorithms", "data": "data"}
        return "register_" + plural.get(self.value, self.value + "s")


class Place(enum.Enum):
    """Where a plugin's function is called; `hook` is the hook that registers it."""

    COMMAND = "command"
    SECTION = "section"

    @property
    def hook(self) -> str:
        return f"register_{self.value}s"


@dataclass(frozen=True)
class Function:
    """A registered function. `target` is "package.module:function", imported by `load` alone."""

    place: Place
    name: str
    summary: str
    target: str
    distribution: str
    version: str

    def load(self) -> Any:
        return _load(self.target, f"{self.place.value} {self.name!r} of {self.distribution}")


@dataclass(frozen=True)
class Component:
    """A registered component. `target` is "package.module:Class", imported by `load` alone."""

    kind: Kind
    name: str
    config: type
    target: str
    distribution: str
    version: str

    @property
    def summary(self) -> str:
        """The first line of the config's docstring."""
        lines = (self.config.__doc__ or "").strip().splitlines()
        return "" if not lines or lines[0].startswith(f"{self.config.__name__}(") else lines[0]

    @property
    def package(self) -> str:
        """The Python package of its class; of a part of the core, the wing that it stands in."""
        parts = self.target.partition(":")[0].split(".")
        return ".".join(parts[:2]) if parts[0] == "alignbench" else parts[0]

    def load(self) -> Any:
        return _load(self.target, f"{self.kind.value}={self.name} of {self.distribution}")


def _load(target: str, where: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module may fail in any way as it is imported
        said = " ".join(str(error).split()).rstrip(".")
        if not isinstance(error, (ImportError, AttributeError, UserError)):
            said = f"{type(error).__name__}: {said}"
        raise UserError(f"{where} cannot be imported from {target!r}: {said}.") from error


@dataclass(frozen=True, eq=False)
class Registry:
    """Every component of every plugin. `manager` knows the hooks around a run."""

    manager: pluggy.PluginManager
    components: Mapping[tuple[Kind, str], Component]
    preset_packages: tuple[str, ...]
    functions: Mapping[tuple[Place, str], Function] = dataclasses.field(default_factory=dict)

    def functions_of(self, place: Place) -> list[Function]:
        return sorted((f for f in self.functions.values() if f.place is place), key=lambda f: f.name)

    def tell(self, event: RunStarted | RunStep | RunFinished) -> None:
        """Calls the hook around a run that this event belongs to. Plugins watch: what one of them raises is a warning, the first time in a
        run, and not the run's fate."""
        hook = HOOK_OF[type(event)]
        for heard in reversed(getattr(self.manager.hook, hook).get_hookimpls()):
            try:
                heard.function(*(event for _ in heard.argnames))
            except Exception as error:  # a plugin may fail in any way
                if (place := (heard.plugin_name, hook, event.directory)) not in _WARNED:
                    _WARNED.add(place)
                    said = " ".join(f"{type(error).__name__}: {error}".split())
                    log.warning(
                        "The plugin %s failed in its hook %s, and the run goes on: %s", heard.plugin_name, hook, said
                    )

    def get(self, kind: Kind, name: str) -> Component:
        try:
            return self.components[kind, name]
        except KeyError:
            for component in self.of(kind):
                if until := former_names(component.config).get(name):
                    old, new = (f"{kind.value}={one}" for one in (name, component.name))
                    warn(old, new, component.distribution, until)
                    return component
            raise unknown_name(kind.value, name, (c.name for c in self.of(kind))) from None

    def of(self, kind: Kind) -> list[Component]:
        return sorted((c for c in self.components.values() if c.kind is kind), key=lambda c: c.name)

    def that(self, kind: Kind, says: str) -> Component:
        """The one of this kind whose config class says so by an attribute of this name: who reads any file, for example."""
        found = [component for component in self.of(kind) if getattr(component.config, says, False)]
        if len(found) != 1:
            names = ", ".join(component.name for component in found) or "none"
            raise UserError(f"Say which {kind.value} is meant: {kind.value}=<name>. Those that say {says}: {names}.")
        return found[0]


_WARNED: set[tuple[str, str, str]] = set()
"""(plugin, hook, directory of the run): what has been said already."""


@functools.cache
def registry() -> Registry:
    """The registry of this process: loaded once, whatever process asks (a launcher's worker included)."""
    blocked = {name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",")}
    return load([*_built_in(), *entry_points(group=hookspecs.GROUP)], blocked)


def _built_in() -> Iterator[EntryPoint]:
    for module in BUILT_IN:
        point = EntryPoint(module, module, hookspecs.GROUP)
        yield point._for(distribution("alignbench"))  # type: ignore[attr-defined]


def resolve(name: str) -> Component:
    """The component of that name; `kind=name` where several kinds have one. Raises UserError that lists the choices."""
    group, _, rest = name.rpartition("=")
    if group:
        known = {kind.value: kind for kind in Kind}
        if group not in known:
            raise unknown_name("kind of component", group, known)
        return registry().get(known[group], rest)
    found = [component for component in registry().components.values() if component.name == name]
    if not found:
        raise unknown_name("component", name, {component.name for component in registry().components.values()})
    if len(found) > 1:
        choices = ", ".join(sorted(f"{component.kind.value}={name}" for component in found))
        raise UserError(f"{name!r} is the name of several components: choose one of {choices}.")
    return found[0]


def load(points: Iterable[EntryPoint], blocked: Iterable[str] = ()) -> Registry:
    """Imports the plugins behind the entry points and collects what they register.

    Raises UserError for a plugin that cannot be imported, an unknown hook, or a clash of names: a missing row in a
    benchmark must never be silent."""
    blocked = set(blocked)
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    by_name: dict[str, EntryPoint] = {}
    for point in sorted(points, key=lambda p: (p.name, _distribution(p))):
        if point.name in blocked:
            continue
        if other := by_name.get(point.name):
            raise UserError(
                f"Two plugins are named {point.name!r}: those of {_distribution(other)} and {_distribution(point)}. "
                f"Uninstall one of them, or do without both: set {BLOCK_VARIABLE}={point.name}."
            )
        by_name[point.name] = point
        with _blame(point):
            plugin = point.load()
            manager.register(plugin, name=point.name)
            hooks = manager.get_hookcallers(plugin) or ()
            for hook in hooks:
                if not hook.has_spec():
                    raise unknown_name("hook", hook.name, (name for name in vars(hookspecs) if _is_hook(name)))
            if not hooks:
                raise UserError(_without_hooks(point, plugin))
    return Registry(manager, _collect(manager, by_name), _presets(manager, by_name), _functions(manager, by_name))


@contextlib.contextmanager
def _blame(point: EntryPoint) -> Iterator[None]:
    """Whatever goes wrong inside is a fault of this plugin: says whose it is and how to do without it."""
    try:
        yield
    except Exception as error:  # a plugin may fail in any way
        reason = " ".join(str(error).split()).rstrip(".")
        if not isinstance(error, UserError):
            reason = f"{type(error).__name__}: {reason}"
        raise UserError(
            f"Plugin {point.name!r} of {_distribution(point)} cannot be used: {reason}. "
            f"Repair or uninstall it, or do without it: set {BLOCK_VARIABLE}={point.name}."
        ) from error


def _without_hooks(point: EntryPoint, plugin: object) -> str:
    """Why a plugin registers nothing, as far as that can be seen."""
    if isinstance(plugin, types.ModuleType) and getattr(plugin, "__file__", None) is None:
        folders = ", ".join(map(str, getattr(plugin, "__path__", ())))
        return f"its entry point {point.value!r} finds a folder without an __init__.py, {folders}: is it in the package's way"
    return f"its entry point {point.value!r} brings no hook: put @hookimpl above its functions register_..."


def _is_hook(name: str) -> bool:
    return hasattr(getattr(hookspecs, name), f"{hookspecs.GROUP}_spec")


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown distribution"


def _collect(manager: pluggy.PluginManager, points: Mapping[str, EntryPoint]) -> dict[tuple[Kind, str], Component]:
    found: dict[tuple[Kind, str], Component] = {}
    for kind in Kind:
        for implementation in getattr(manager.hook, kind.hook).get_hookimpls():
            point = points[implementation.plugin_name]

            def register(name: str, config: type, target: str, kind: Kind = kind, point: EntryPoint = point) -> None:
                component = Component(
                    kind, name, config, target, _distribution(point), point.dist.version if point.dist else "0"
                )
                _check(component)
                if clash := found.get((kind, name)):
                    both = f"{clash.distribution} ({clash.target}) and by {component.distribution} ({target})"
                    raise UserError(f"{kind.value}={name} is registered twice, by {both}.")
                found[kind, name] = component

            with _blame(point):
                implementation.function(register)
    return found


def _functions(manager: pluggy.PluginManager, points: Mapping[str, EntryPoint]) -> dict[tuple[Place, str], Function]:
    found: dict[tuple[Place, str], Function] = {}
    for place in Place:
        for implementation in getattr(manager.hook, place.hook).get_hookimpls():
            point = points[implementation.plugin_name]

            def register(name: str, summary: str, target: str, place: Place = place, point: EntryPoint = point) -> None:
                version = point.dist.version if point.dist else "0"
                function = Function(place, name, summary, target, _distribution(point), version)
                where = f"{place.value} {name!r}"
                if not _FUNCTION_NAME.fullmatch(name):
                    raise UserError(f"{where}: its name is lower-case letters, digits and hyphens.")
                if not summary.strip():
                    raise UserError(f"{where}: say in one line what it is.")
                if ":" not in target:
                    raise UserError(f"{where}: the target must read 'package.module:function', not {target!r}.")
                if clash := found.get((place, name)):
                    both = f"{clash.distribution} ({clash.target}) and by {function.distribution} ({target})"
                    raise UserError(f"{where} is registered twice, by {both}.")
                found[place, name] = function

            with _blame(point):
                implementation.function(register)
    return found


def _check(component: Component) -> None:
    where = f"{component.kind.value}={component.name!r}"
    if not _NAME.fullmatch(component.name):
        raise UserError(f"{where}: a component's name is lower-case letters, digits and underscores.")
    if not (isinstance(component.config, type) and dataclasses.is_dataclass(component.config)):
        raise UserError(f"{where}: the config must be a dataclass, not {component.config!r}.")
    if component.config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise UserError(f"{where}: the config dataclass must not be frozen: overrides could not change it.")
    for name, hint in _hints(component.config, where).items():
        if not _settable(hint):
            raise UserError(
                f"{where}: the option {name} of {component.config.__name__} is {_type_name(hint)}, which no command line can set: use "
                "int, float, str, bool, an enum, list[...], dict[str, ...] or an optional of these."
            )
    if ":" not in component.target:
        raise UserError(f"{where}: the target must read 'package.module:Class', not {component.target!r}.")
    if component.kind is Kind.ALGORITHM and not hasattr(component.config, "consumes"):
        raise UserError(
            f"{where}: the config must declare `consumes` (demonstrations, rollouts, preferences or labels)."
        )
    if component.kind is Kind.STAGE:
        if not isinstance(getattr(component.config, "place", None), StagePlace):
            raise UserError(f"{where}: the config must declare `place`, one of {', '.join(map(str, StagePlace))}.")
        if odd := [str(need) for need in getattr(component.config, "needs", ()) if need not in STAGE_NEEDS]:
            raise unknown_name("need", odd[0], STAGE_NEEDS, where=f"{where}: `needs`")


def _hints(schema: type, where: str) -> dict[str, Any]:
    """The types of a config's fields, by name."""
    try:
        known = typing.get_type_hints(schema)
    except Exception as error:  # an annotation is any expression
        raise UserError(f"{where}: the types of {schema.__name__} cannot be read: {error}.") from error
    return {field.name: known[field.name] for field in dataclasses.fields(schema)}


def _settable(hint: Any) -> bool:
    """Whether a configuration can hold it and give it back as it was: OmegaConf makes a list of a tuple, for example."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return all(one is types.NoneType or _settable(one) for one in inside)
    if origin is list:
        return _settable(inside[0])
    if origin is dict:
        return inside[0] is str and _settable(inside[1])
    if hint in (Any, list, dict, *_PLAIN):
        return True
    return isinstance(hint, type) and (issubclass(hint, enum.Enum) or dataclasses.is_dataclass(hint))


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _presets(manager: pluggy.PluginManager, points: Mapping[str, EntryPoint]) -> tuple[str, ...]:
    packages: list[str] = []
    for implementation in manager.hook.register_presets.get_hookimpls():
        with _blame(points[implementation.plugin_name]):
            implementation.function(packages.append)
    return tuple(sorted(packages))
