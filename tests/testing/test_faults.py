"""A kit is worth the faults that it finds: each of these is planted, and must be caught."""

from __future__ import annotations

import pytest

from alignbench.testing import PropertyBroken, checks_of
from tests.testing import document
from tests.testing.faults import EXPERIENCE, FAULTS, Fault, faulty_module, original, planted


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.component} {fault.name}")
def test_the_fault_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault.module == EXPERIENCE:  # the core's own: the kit reads the faulty one, and the component is as it is
        monkeypatch.setattr("alignbench.testing.experience.experience", faulty_module(fault))
    component = original(fault) if fault.module == EXPERIENCE else planted(fault)
    (check,) = (check for check in checks_of(component) if check.name == fault.caught_by)
    with pytest.raises(PropertyBroken) as broken:
        check.run(component, 0)
    print(f"{fault.component}: {fault.name}: {check.name}: {broken.value}")


def test_every_fault_is_a_fault_of_its_own() -> None:
    assert len({(fault.component, fault.name) for fault in FAULTS}) == len(FAULTS) >= 15
    assert len({(fault.component, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)


def test_every_check_of_an_update_catches_a_fault_or_is_excused() -> None:
    """What no fault has tried is not known to work."""
    tried = {fault.caught_by for fault in FAULTS}
    checks = {check.name for fault in FAULTS for check in checks_of(original(fault))}
    assert checks - tried == document.UNTRIED


def test_the_page_holds_the_tables() -> None:
    text = document.PAGE.read_text()
    assert text == document.written(text), "docs/conformance.md is behind: python tests/testing/document.py"
