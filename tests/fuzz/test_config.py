"""A few hundred cases of the fuzzers; `python -m tests.fuzz.config` tries thousands."""

from __future__ import annotations

from typing import Any

import pytest

from alignbench import bounds
from tests.fuzz import config


def test_no_value_of_a_configuration_ends_in_a_traceback() -> None:
    found = config.fuzz(400, seed=0)
    assert not found.faults, found.faults[0]
    assert found.refused > 10
    assert found.loaded > 10


def test_a_fault_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ranges the values that they refuse reach what cannot take them."""

    def unchecked(*_: Any, **__: Any) -> None:
        return None

    for module in ("selection", "optimizer_config"):
        monkeypatch.setattr(f"alignbench.{module}.check_bounds", unchecked)
    assert bounds.check_bounds is not unchecked
    assert config.fuzz(500, seed=0).faults
