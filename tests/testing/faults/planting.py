"""Plants a fault: one small change to the source of a component, in a copy of its module."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import linecache
import sys
import types
from collections.abc import Iterator
from typing import Any

from alignbench import functional
from alignbench.plugins import Component, Kind, registry
from tests.testing.faults.fault import Fault

EXPERIENCE = "alignbench.pipeline.experience"
"""The core's own: what it feeds an algorithm."""


_PLANTED = "_planted_"


def original(fault: Fault) -> Component:
    kind, _, name = fault.component.partition("=")
    return registry().get(Kind(kind), name)


def faulty_module(fault: Fault) -> types.ModuleType:
    """The module with the fault, by itself."""
    source = inspect.getsource(importlib.import_module(fault.module))
    assert fault.old in source, f"{fault.name}: {fault.module} has no {fault.old!r}"
    return _module(fault.module, fault.name, source.replace(fault.old, fault.new))


def planted(fault: Fault) -> Component:
    """The component with the fault, in a copy of its module; no other component sees it."""
    component = original(fault)
    home, _, attribute = component.target.partition(":")
    where = fault.module or home
    importlib.import_module(home)
    if component.kind is Kind.MODEL:
        registry().get(Kind.SAMPLER, "loop").load()  # it is read again with the rest
    source = inspect.getsource(importlib.import_module(where))
    assert fault.old in source, f"{fault.name}: {where} has no {fault.old!r}"
    faulty = _module(where, fault.name, source.replace(fault.old, fault.new))
    if where != home:
        # A base class or a function from elsewhere: the modules of the package are read again, and find the faulty one.
        sources = {name: _source(name) for name in [*_siblings(home), home] if name != where}
        with contextlib.ExitStack() as stack:
            stack.enter_context(_standing_in(where, faulty))
            for name, text in sources.items():
                faulty = _module(name, fault.name, text)
                stack.enter_context(_standing_in(name, faulty))
            if component.kind is Kind.MODEL:
                _sample_by_the_copy(faulty, attribute)
    return dataclasses.replace(component, target=f"{faulty.__name__}:{attribute}")


def _sample_by_the_copy(module: types.ModuleType, build: str) -> None:
    """A model finds its sampler by name when it is built, which is after the copies have left: it is handed the copy."""
    right, loop = getattr(module, build), registry().get(Kind.SAMPLER, "loop")
    home, _, attribute = loop.target.partition(":")
    make = getattr(sys.modules[home], attribute)

    def built(config: Any, **wiring: Any) -> Any:
        policy = right(config, **wiring)
        if config.sampler == loop.name:
            policy._sampler = make(loop.config(), policy=policy)
        return policy

    setattr(module, build, built)


def _siblings(home: str) -> list[str]:
    """The loaded modules of the class's package that hold code of their own and no config, those read first first."""
    package = home.rpartition(".")[0]
    names = [name for name in sys.modules if name.startswith(f"{package}.") and _PLANTED not in name]
    names = [name for name in names if name != home and not name.endswith(".config") and _has_code(name)]
    return sorted(names, key=lambda name: _source(name).count(f"from {package}."))


def _has_code(name: str) -> bool:
    """An empty __init__.py has no source to read again."""
    return bool(linecache.getlines(getattr(sys.modules[name], "__file__", None) or ""))


def _source(name: str) -> str:
    return inspect.getsource(sys.modules[name])


def _module(name: str, fault: str, source: str) -> types.ModuleType:
    # In the package that it is from: the kit looks there for what belongs to a component.
    made = types.ModuleType(name + _PLANTED + "".join(c if c.isalnum() else "_" for c in fault))
    made.__file__ = sys.modules[name].__file__  # a module may look for its data beside itself
    sys.modules[made.__name__] = made
    exec(compile(source, f"<{name} {fault}>", "exec"), made.__dict__)
    return made


@contextlib.contextmanager
def _standing_in(name: str, module: types.ModuleType) -> Iterator[None]:
    """`module` is what importing `name` gives."""
    package, _, attribute = name.rpartition(".")
    before = sys.modules[name]
    handed_on = {n: f for n, f in vars(before).items() if callable(f) and getattr(functional, n, None) is f}
    sys.modules[name] = module
    setattr(sys.modules[package], attribute, module)
    for function in handed_on:  # the door has it too
        setattr(functional, function, getattr(module, function))
    try:
        yield
    finally:
        sys.modules[name] = before
        setattr(sys.modules[package], attribute, before)
        for function, right in handed_on.items():
            setattr(functional, function, right)
