"""What an optimizer is fed of recorded data. B rows; shapes as in `records.Sequences`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignbench.records import Sequences

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DemonstrationBatch:
    """B demonstrations, prompts and the responses to imitate."""

    sequences: Sequences


@dataclass(frozen=True)
class PreferenceBatch:
    """B pairs; row i of `chosen` and of `rejected` answer the same prompt. `probability` [B] or None: see PreferencePair.

    `ref_chosen`, `ref_rejected` [B] float32: the reference's log-probabilities of the responses, in nats, summed over their
    tokens; None for an algorithm whose config says `uses_reference = False`."""

    chosen: Sequences
    rejected: Sequences
    probability: Tensor | None = None
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None

    def __len__(self) -> int:
        return len(self.chosen)

    def select(self, rows: Tensor) -> PreferenceBatch:
        """The given rows, trimmed as Sequences.select does."""
        known = (
            part if part is None else part[rows] for part in (self.probability, self.ref_chosen, self.ref_rejected)
        )
        return PreferenceBatch(self.chosen.select(rows), self.rejected.select(rows), *known)


@dataclass(frozen=True)
class LabelledBatch:
    """B responses, each called good or bad on its own: `good` [B] bool. The two responses of a pair, where they come from pairs, are
    neighbours. `ref_logprobs` [B] float32: as PreferenceBatch.ref_chosen, or None."""

    sequences: Sequences
    good: Tensor
    ref_logprobs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, rows: Tensor) -> LabelledBatch:
        """The given rows, trimmed as Sequences.select does."""
        known = None if self.ref_logprobs is None else self.ref_logprobs[rows]
        return LabelledBatch(self.sequences.select(rows), self.good[rows], known)
