"""`alignbench [overrides]`: one run, or a sweep of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from alignbench.app import compose, telling
from alignbench.app.config import RunConfig
from alignbench.app.telling import Verbosity


def main(arguments: Sequence[str]) -> int:
    """Raises what a run raises; returns 0."""
    verbosity, overrides = telling.chosen(arguments)
    compose.main(partial(_task, verbosity=verbosity), overrides, verbosity)
    return 0


def _task(config: RunConfig, *, verbosity: Verbosity) -> None:
    from alignbench.pipeline.run import run  # torch is imported here, once the configuration is known to be good

    # A sweep has one table, at its end.
    run(config, verbosity=verbosity, table=verbosity is Verbosity.VERBOSE or not compose.in_sweep())
