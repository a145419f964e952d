"""A few hundred cases of the fuzzers; `python -m tests.fuzz.config` tries thousands."""

from __future__ import annotations

from typing import Any

import pytest

from alignbench.plugins import Kind, registry
from alignbench.selection import Selected
from tests.fuzz import config


def test_no_value_of_a_configuration_ends_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    built = set()

    def noted(self: Selected, *rest: Any, **more: Any) -> Any:
        built.add(self.label)
        return build(self, *rest, **more)

    build = Selected.build
    monkeypatch.setattr(Selected, "build", noted)
    found = config.fuzz(400, seed=5)
    assert not found.faults, found.faults[0]
    assert found.tried == 400 and found.refused > 40 and found.well > 40
    small = {component.name for component in registry().of(Kind.DATA)}
    assert built & small, "data sources too, at a size that takes a moment"


def test_a_fault_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ranges the values that they refuse reach what cannot take them."""

    def unchecked(*_: Any, **__: Any) -> None:
        return None

    for module in ("selection", "optimizer_config"):
        monkeypatch.setattr(f"alignbench.{module}.check_bounds", unchecked)
    assert any("Traceback" in wrong for _, wrong in config.fuzz(400, seed=0).faults)
