"""What the tests of this folder share."""

import pytest

ASKED_OF_LM_EVAL = ("test_tasks", "test_lm", "test_include_path", "test_sides", "test_constraints")


@pytest.fixture(autouse=True)
def without_tasks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted models of most tests answer by one function and have no chat template: what the families ask through lm-eval
    is left out there."""
    if request.module.__name__.rpartition(".")[2] not in ASKED_OF_LM_EVAL:
        for family in ("helpfulness", "sycophancy", "diversity", "capability"):
            monkeypatch.setattr(f"alignbench_suite.{family}.evaluation.ask_family", lambda *args, **options: [])
