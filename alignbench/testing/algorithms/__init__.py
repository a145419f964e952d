"""What an algorithm is held to, in the order of the checks."""

from alignbench.testing.algorithms import effects, equations, exact, invariance, metrics, steps, updates
from alignbench.testing.algorithms.updates import supported as supported

CHECKS = tuple(
    check for part in (updates, invariance, steps, metrics, effects, equations, exact) for check in part.check.checks
)
# What trains nothing has no update to check.
STILL_CHECKS = tuple(check for check in exact.check.checks if check.name.startswith("optimum_"))
