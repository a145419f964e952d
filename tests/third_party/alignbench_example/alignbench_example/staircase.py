"""A schedule of the learning rate that falls in stairs."""

from __future__ import annotations

from alignbench_example.config import StaircaseConfig


def staircase(config: StaircaseConfig, *, progress: float) -> float:
    return config.factor ** min(int(progress * config.stairs), config.stairs - 1)
