"""Faults to plant, a file for each kind of component, and the checks that must catch them. docs/conformance.md is made from
this table."""

from tests.testing.faults.algorithms import ALGORITHMS
from tests.testing.faults.annotators import ANNOTATORS
from tests.testing.faults.data_sources import DATA_SOURCES
from tests.testing.faults.evaluations import EVALUATIONS
from tests.testing.faults.fault import Fault
from tests.testing.faults.groups import GROUP_FAULTS
from tests.testing.faults.models import MODELS
from tests.testing.faults.planting import EXPERIENCE, faulty_module, original, planted
from tests.testing.faults.rewards import REWARDS
from tests.testing.faults.sampled import SAMPLED
from tests.testing.faults.sampling_and_roles import MODEL_FAULTS
from tests.testing.faults.steps import ALGORITHM_FAULTS
from tests.testing.faults.training import TRAINING

__all__ = ["EXPERIENCE", "FAULTS", "Fault", "faulty_module", "original", "planted"]

FAULTS: tuple[Fault, ...] = (
    *ALGORITHM_FAULTS,
    *ALGORITHMS,
    *GROUP_FAULTS,
    *REWARDS,
    *ANNOTATORS,
    *EVALUATIONS,
    *DATA_SOURCES,
    *MODELS,
    *MODEL_FAULTS,
    *SAMPLED,
    *TRAINING,
)
