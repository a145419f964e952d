"""Writes the tables of docs/conformance.md from the kit and the planted faults: python tests/testing/document.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance.md"

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from alignbench.testing.checks import Check  # noqa: E402
from alignbench.testing.conformance import (  # noqa: E402
    ALGORITHM_CHECKS,
    ANNOTATOR_CHECKS,
    CONFIG_CHECKS,
    DATA_CHECKS,
    EVALUATION_CHECKS,
    MODEL_CHECKS,
    OPTIMIZER_CHECKS,
    REWARD_CHECKS,
    SAMPLER_CHECKS,
    SCHEDULE_CHECKS,
)
from tests.testing.faults import FAULTS  # noqa: E402

GROUPS = {
    "Every component": CONFIG_CHECKS,
    "Algorithms": ALGORITHM_CHECKS,
    "Models": MODEL_CHECKS,
    "Reward sources": REWARD_CHECKS,
    "Annotators": ANNOTATOR_CHECKS,
    "Evaluations": EVALUATION_CHECKS,
    "Data sources": DATA_CHECKS,
    "Optimizers": OPTIMIZER_CHECKS,
    "Schedules": SCHEDULE_CHECKS,
    "Samplers": SAMPLER_CHECKS,
}
UNTRIED = {check.name for check in CONFIG_CHECKS} | {"algorithm_declares_what_it_consumes"}
"""No change to a module's text breaks these: test_kit.py does it with configs of its own."""


def check_table(checks: tuple[Check, ...]) -> str:
    rows = [f"| `{check.name}` | {check.says} | {check.within} | {check.causes} |" for check in checks]
    return "\n".join(
        ["| check | what holds | within | what most often breaks it |", "| --- | --- | --- | --- |", *rows]
    )


def fault_table() -> str:
    rows = [f"| `{fault.component}` | {fault.name} | `{fault.caught_by}` |" for fault in FAULTS]
    return "\n".join(["| planted in | fault | caught by |", "| --- | --- | --- |", *rows])


def written(text: str) -> str:
    """The page with its tables as they should be."""
    checks = "\n\n".join(f"### {group}\n\n{check_table(checks)}" for group, checks in GROUPS.items())
    for name, table in (("checks", checks), ("faults", fault_table())):
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)"
        text, count = re.subn(pattern, lambda m, table=table: m[1] + table + m[2], text, flags=re.DOTALL)
        assert count == 1, f"no place for the {name}"
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
