"""A task for sweeps that trains nothing: python -m tests.sweeps.pretend -m algo.learning_rate=1e-3,1e-2 ..."""

from __future__ import annotations

import math
import os
import sys

from alignbench import UserError
from alignbench.app import compose
from alignbench.app.config import RunConfig
from alignbench.errors import AlignbenchError
from alignbench.pipeline import lifecycle
from alignbench.pipeline.display import Display
from alignbench.records import Direction, Metric

METRIC = "helpfulness/gold_reward"


def goodness(learning_rate: float) -> float:
    """Best at 1e-3, where it is 0."""
    return -((math.log10(learning_rate) + 3) ** 2)


def pretend(config: RunConfig) -> None:
    """A run directory with one metric, and the threads that torch takes here. Seed 13 fails."""
    with lifecycle.begun(config, annotator=True, reward=True, say=print) as begun:
        _carry_out(config, begun)


def _carry_out(config: RunConfig, begun: lifecycle.Begun) -> None:
    directory, record = begun.directory, begun.record
    with lifecycle.ending(directory, record, Display()):
        lifecycle.announce_start(config, directory)
        if config.seed == 13:
            raise UserError("seed 13 fails.")
        metrics = {METRIC: Metric(goodness(config.algo.config.learning_rate), 0.1, 1, Direction.HIGHER)}
        metrics["optimization/kl"] = Metric(1e3 * config.algo.config.learning_rate, 0.1, 1, Direction.NEITHER)
        if threads := _threads():
            metrics["pretend/threads"] = Metric(threads, math.nan, 1, Direction.NEITHER)
        none: dict[str, int] = {}
        lifecycle.finish(
            directory,
            record,
            metrics=metrics,
            unanswered=none,
            reports={},
            counts=none,
            ended=None,
            reused={},
            cost=record.cost,
        )


def _threads() -> int:
    if "PRETEND_THREADS" not in os.environ:  # torch takes seconds to import
        return 0
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    try:
        compose.main(pretend, sys.argv[1:])
    except AlignbenchError as error:
        sys.exit(str(error))
