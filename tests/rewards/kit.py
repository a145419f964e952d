"""The conformance kit for reward sources that need settings before they can be built."""

from __future__ import annotations

from alignbench.plugins import Component, Kind, registry
from alignbench.testing import Status
from alignbench.testing.checks import run_checks
from alignbench.testing.conformance import REWARD_CHECKS


def conforms(name: str, config: type) -> dict[str, Status]:
    """What each check of a reward source says of the registered one under the defaults of `config`; no check may fail."""
    known = registry().get(Kind.REWARD, name)
    component = Component(Kind.REWARD, name, config, known.target, known.distribution, known.version)
    results = list(run_checks(REWARD_CHECKS, component))
    failed = [result.line() for result in results if result.status is Status.FAILED]
    assert not failed, failed
    found = {result.check.name: result.status for result in results}
    assert found["scores_do_not_depend_on_padding"] is Status.OK, "it was built, and scored"
    return found
