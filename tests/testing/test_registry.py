"""Everything that is registered is held to the kit: a new plugin is tested here by being registered."""

from __future__ import annotations

import pytest

from alignbench.plugins import Component, registry
from alignbench.testing import Check, checks_of
from alignbench.testing.checks import declined
from alignbench.testing.conformance import DATA_CHECKS, MODEL_CHECKS

CASES = [
    pytest.param(component, check, id=f"{component.kind.value}={component.name}-{check.name}")
    for _, component in sorted(registry().components.items(), key=lambda item: (item[0][0].value, item[0][1]))
    for check in checks_of(component)
    # What reads files of a user's is held to them on small ones: tests/hf/test_conformance.py, tests/data/test_conformance.py.
    if not (check in (*MODEL_CHECKS, *DATA_CHECKS) and hasattr(component.config, "path"))
]


@pytest.mark.parametrize(("component", "check"), CASES)
def test_it_conforms(component: Component, check: Check) -> None:
    if reason := declined(component).get(check.name):
        pytest.skip(f"declined: {reason}")
    margin = check.run(component, 0)
    assert bool(margin) == bool(check.within), (
        "a check that has a threshold shows how near a component came, and no other"
    )
