"""How far a fit has come, and what it needs to go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Progress(Protocol):
    """`progress(update, updates, metrics, state)`, called after each optimizer step of a fit. `state()` gives all that
    `fit(..., state=)` needs to go on from there, as tensors and plain values; without it a killed fit starts again."""

    def __call__(
        self,
        update: int,
        updates: int,
        metrics: Mapping[str, float],
        state: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None: ...
