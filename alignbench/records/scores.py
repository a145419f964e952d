"""Scores of responses, and the parts that they are sums of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from alignbench.records import Rollout


@dataclass(frozen=True)
class RewardParts:
    """What scores are weighted sums of. `names` of the M parts, no two alike, and their `weights`; `values` [B, M] float32: what each
    response gets of each part before it is weighed, without gradient."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    values: Tensor

    def total(self) -> Tensor:
        """[B]: the scores."""
        total = self.values.new_zeros(len(self.values))
        for weight, part in zip(self.weights, self.values.unbind(1), strict=True):
            total += weight * part
        return total

    def select(self, rows: Tensor) -> RewardParts:
        """Those of the given rows."""
        return RewardParts(self.names, self.weights, self.values[rows])


@dataclass(frozen=True)
class ScoredRollout:
    """A rollout and one raw score a response, [B] float32: no KL penalty, no whitening (those belong to an optimizer). `parts`: what
    the scores are sums of, None where the reward source gives none."""

    rollout: Rollout
    scores: Tensor
    parts: RewardParts | None = None
