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
    return dataclasses.replace(component, target=f"{faulty.__name__}:{attribute}")


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
    sys.modules[name] = module
    setattr(sys.modules[package], attribute, module)
    try:
        yield
    finally:
        sys.modules[name] = before
        setattr(sys.modules[package], attribute, before)
