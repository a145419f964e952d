"""The conformance kit: checks that any algorithm, reward source or evaluation is held to.

    alignbench check ppo reward=learned

At the command line, or in a plugin's own tests (see docs/plugins.md, "Checking your plugin"). It needs no test framework
and imports torch.
"""

from alignbench.testing.checks import Check, NotApplicable, PropertyBroken, Result, Status
from alignbench.testing.conformance import (
    AlgorithmConformance,
    EvaluationConformance,
    RewardConformance,
    check,
    checks_of,
)
from alignbench.testing.tabular import TabularPolicy, disguise
from alignbench.testing.world import BradleyTerry, World, WorldData, exact_kl, total_variation

__all__ = [
    "AlgorithmConformance",
    "BradleyTerry",
    "Check",
    "EvaluationConformance",
    "NotApplicable",
    "PropertyBroken",
    "Result",
    "RewardConformance",
    "Status",
    "TabularPolicy",
    "World",
    "WorldData",
    "check",
    "checks_of",
    "disguise",
    "exact_kl",
    "total_variation",
]
