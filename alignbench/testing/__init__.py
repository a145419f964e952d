"""The conformance kit: checks that any algorithm, model, data source, reward source or evaluation is held to.

    alignbench check ppo reward=learned
    alignbench check model=hf model.path=./my-model

At the command line, or in a plugin's own tests (see docs/plugins.md, "Checking your plugin"). It needs no test framework
and imports torch.
"""

from functools import partial
from typing import TYPE_CHECKING

from alignbench.deprecation import moved
from alignbench.selection import with_defaults
from alignbench.testing.checks import Check, NotApplicable, PropertyBroken, Result, Status
from alignbench.testing.conformance import (
    AlgorithmConformance,
    AnnotatorConformance,
    DataConformance,
    EvaluationConformance,
    ModelConformance,
    OptimizerConformance,
    RewardConformance,
    SamplerConformance,
    ScheduleConformance,
    check,
    checks_of,
)
from alignbench.testing.tabular import TabularPolicy, disguise
from alignbench.testing.world import BradleyTerry, World, WorldData, exact_kl, total_variation

__all__ = [
    "AlgorithmConformance",
    "AnnotatorConformance",
    "BradleyTerry",
    "Check",
    "DataConformance",
    "EvaluationConformance",
    "ModelConformance",
    "NotApplicable",
    "OptimizerConformance",
    "PropertyBroken",
    "Result",
    "RewardConformance",
    "SamplerConformance",
    "ScheduleConformance",
    "Status",
    "TabularPolicy",
    "World",
    "WorldData",
    "check",
    "checks_of",
    "disguise",
    "exact_kl",
    "total_variation",
    "with_defaults",
]

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = partial(moved, __name__)  # names that were here once
