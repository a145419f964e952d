"""Schedules of the learning rate: the share of it at `progress`, from 0 (the warm-up has ended) to 1 (so have the updates)."""

from __future__ import annotations

import math

from alignbench.optimization.config import ConstantConfig, CosineConfig, LinearConfig, WSDConfig


def constant(config: ConstantConfig, *, progress: float) -> float:
    return 1.0


def linear(config: LinearConfig, *, progress: float) -> float:
    return _down_to(config.final, 1.0 - progress)


def cosine(config: CosineConfig, *, progress: float) -> float:
    return _down_to(config.final, 0.5 * (1.0 + math.cos(math.pi * progress)))


def wsd(config: WSDConfig, *, progress: float) -> float:
    return _down_to(config.final, min((1.0 - progress) / config.decay, 1.0))


def _down_to(final: float, factor: float) -> float:
    return final + (1.0 - final) * factor
