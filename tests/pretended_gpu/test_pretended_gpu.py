"""What can be seen of a GPU without one: no device is mixed with another, nothing waits or computes more than it must, and the
figures are those of the CPU. Everything runs in one process, which device.cpp and device.py make believe that it has a GPU."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.pretended_gpu.counts import CEILINGS, over
from tests.pretended_gpu.faults import FAULTS
from tests.pretended_gpu.process import library, start
from tests.pretended_gpu.work import every_work

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pretended_gpu")
    start(library(folder), "-m", "tests.pretended_gpu.child", str(folder / "found.json"))
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.parametrize("name", every_work())
def test_work_on_the_gpu_is_that_on_the_cpu(name: str, outcome: dict[str, Any]) -> None:
    cpu, gpu = outcome["cpu"][name], outcome["gpu"][name]
    assert not cpu["error"]
    assert not gpu["error"]
    # Whether a margin that is 0 but for rounding is above 0 means nothing.
    figures = [{k: v for k, v in one["found"].items() if "accuracy" not in k} for one in (cpu, gpu)]
    assert figures[1] == pytest.approx(figures[0], rel=2e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_seen(fault: Any, outcome: dict[str, Any]) -> None:
    assert fault.seen in outcome["faults"][fault.name]


def test_the_host_waits_and_starts_kernels_no_more_than_it_did(outcome: dict[str, Any]) -> None:
    assert outcome["counts"].keys() == CEILINGS.keys()
    assert not over(outcome["counts"])
