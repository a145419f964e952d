"""What an algorithm is held to, in the order of the checks."""

from alignbench.testing.algorithms import exact, updates
from alignbench.testing.algorithms.updates import supported as supported

CHECKS = (*updates.check.checks, *exact.check.checks)
# What trains nothing has no update to check.
STILL_CHECKS = tuple(check for check in exact.check.checks if check.name.startswith("optimum_"))
