"""The schedule of the learning rate as the kit judges it: written from its definition, not with the algorithms' own helper."""

from __future__ import annotations

import math


def share_of_rate(update: int, *, updates: int, schedule: str, warmup: int) -> float:
    """Of the learning rate, at `update` of `updates`, from 0: linear warm-up, then constant, linear or cosine to 0."""
    if update < warmup:
        return (update + 1) / (warmup + 1)
    done = min((update - warmup) / max(updates - warmup, 1), 1.0)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]
