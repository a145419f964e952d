"""`alignbench [overrides]`: one run, or a sweep of them."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench.app import compose
from alignbench.app.config import RunConfig


def main(arguments: Sequence[str]) -> int:
    """Raises what a run raises; returns 0."""
    compose.main(_task, arguments)
    return 0


def _task(config: RunConfig) -> None:
    from alignbench.pipeline.run import run  # torch is imported here, once the configuration is known to be good

    run(config)
