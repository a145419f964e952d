"""What a stage of one's own says of itself, and what it gives."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from alignbench.records import Demonstration

STAGE_NEEDS = ("demonstrations", "rankings", "held_out", "score")
"""What a stage may say that it cannot do without: fields of StageView."""


class StagePlace(enum.Enum):
    """Where a stage stands in a run: its config's `place`."""

    BEFORE_SFT = "before_sft"
    AFTER_REWARD = "after_reward"
    AFTER_ALGORITHM = "after_algorithm"


@dataclass(frozen=True)
class StageResult:
    """What a stage gives. `figures`, finite numbers by name, stand in result.json as stage/<name>/<figure>; `summary` is its line in the
    terminal. `demonstrations`: of a stage before SFT, what is imitated in place of those that it was given; None: the same."""

    figures: Mapping[str, float] = field(default_factory=dict)
    summary: str = ""
    demonstrations: tuple[Demonstration, ...] | None = None
