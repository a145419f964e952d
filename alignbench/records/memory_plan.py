"""What the stages of a run ask of a model, and what that takes: the terms in which a model's config estimates memory."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ADAMW_BYTES = 8.0
"""Of AdamW's two moments, for each weight; what an optimizer is taken to need whose config has no `state_bytes`."""


class Does(enum.Enum):
    """The passes that a model is asked for."""

    SAMPLE = "sample"
    SCORE = "score"
    TRAIN = "train"


@dataclass(frozen=True)
class Work:
    """What one stage asks of a model at once.

    `rows` are responses: those of one forward and backward pass in TRAIN, all that are asked for in SAMPLE and SCORE (the
    model has batches of its own there). `prompts` counts the different prompts among them. `roles` exist by then;
    `optimized` are those with gradients and optimiser state, which stay for the whole stage; that takes `state_bytes` for each weight."""

    stage: str
    does: Does
    rows: int
    prompts: int
    roles: tuple[str, ...]
    optimized: tuple[str, ...] = ()
    state_bytes: float = ADAMW_BYTES


@dataclass(frozen=True)
class Part:
    """A part of what one stage holds at its peak, in bytes. `certain` is false of what was measured elsewhere and may be less here."""

    name: str
    size: int
    certain: bool = True


class PlanningConfig(Protocol):
    """What a model's config has where its memory can be estimated before it is built (`alignbench plan`).

    Nothing is loaded: whatever the estimate needs to know of a pretrained model stands in its config.json."""

    def plan(
        self, works: Sequence[Work], *, device: str, tokenizer: Callable[[], PreTrainedTokenizerBase | None]
    ) -> list[tuple[Part, ...]]:
        """The parts of each work at its peak, in rows as long as the model's limits allow. `device` is cpu or cuda; `tokenizer`
        gives the data's own, for models built from scratch. What the process takes beside the model is not counted."""

    def savings(self) -> dict[str, list[Any]]:
        """Fields of this config that can take less memory, each with the values to try, mildest first."""
