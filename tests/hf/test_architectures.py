"""Every architecture is trained as the libraries' own passes train it, or refused; the committed table says which."""

from __future__ import annotations

import pytest

from tests.hf import architecture_checks, architecture_table, architectures


@pytest.mark.parametrize("setting", architecture_checks.SETTINGS)
@pytest.mark.parametrize("name", architectures.CONFIGS)
def test_an_architecture_is_trained_rightly_or_refused(name: str, setting: str) -> None:
    found = architecture_checks.outcome(name, setting)
    assert (found.plain == "yes") is (name not in architectures.REFUSED), found


def test_the_committed_table_is_what_the_checks_say() -> None:
    assert architecture_table.committed() == architecture_table.table(), (
        "run: python tests/hf/architecture_table.py --write"
    )
