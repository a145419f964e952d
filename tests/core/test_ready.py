"""What builds the chosen components is imported, and looked at, before anything is trained."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from pathlib import Path
from typing import Any

import pytest

from alignbench import Annotator, Evaluation, RewardSource, Tracker, UserError
from alignbench.app.compose import load_config
from alignbench.app.config import RunConfig
from alignbench.app.ready import check_ready
from alignbench.selection import Selected

SLOTS = ("algo", "sft", "pretrain", "model", "data", "reward", "annotator", "tracker", "judge", "evaluations")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config(["reward@judge=length", "eval.families=[diversity,helpfulness]"])


def with_target(config: RunConfig, slot: str, target: str) -> RunConfig:
    def changed(chosen: Selected) -> Selected:
        return dataclasses.replace(chosen, component=dataclasses.replace(chosen.component, target=target))

    held: Any = getattr(config, slot)
    found = (*held[:-1], changed(held[-1])) if isinstance(held, tuple) else changed(held)
    return dataclasses.replace(config, **{slot: found})


class Half(Annotator):
    """A component that leaves a method out."""

    @abstractmethod
    def left_out(self) -> None: ...


NOTHING: Tracker | RewardSource | Evaluation | None = None


@pytest.mark.parametrize("slot", SLOTS)
def test_a_target_that_is_not_there_is_one_line(config: RunConfig, slot: str) -> None:
    check_ready(config)
    with pytest.raises(
        UserError, match=r"^\S+=\w+ of alignbench cannot be imported from 'no_such_package.here:Thing'"
    ) as error:
        check_ready(with_target(config, slot, "no_such_package.here:Thing"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("slot", "target", "says"),
    [
        ("tracker", "tests.core.test_ready:Half", "does not derive from Tracker"),
        ("annotator", "tests.core.test_ready:Half", "lacks left_out, which every Annotator has"),
        ("evaluations", "tests.core.test_ready:NOTHING", "is no class"),
        ("judge", "tests.core.test_ready:Missing", "has no attribute 'Missing'"),
    ],
)
def test_a_target_that_is_no_such_component_is_one_line(config: RunConfig, slot: str, target: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_ready(with_target(config, slot, target))


def test_a_module_that_fails_as_it_is_imported_is_one_line(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module_of_a_test.py").write_text("raise RuntimeError('no\\nlicence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"'broken_module_of_a_test:Thing': RuntimeError: no licence\.$"):
        check_ready(with_target(config, "evaluations", "broken_module_of_a_test:Thing"))
