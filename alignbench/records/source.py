"""Who draws responses."""

from __future__ import annotations

from dataclasses import dataclass

from alignbench.records import POLICY


@dataclass(frozen=True)
class Source:
    """Who draws a response: a role, POLICY or REFERENCE. With a `reference_share` s, from 0 to below 1, each token is drawn in proportion to
    pi^(1 - s) pi_ref^s of the probabilities that the role and the frozen reference give it: their geometric mixture, token by token."""

    role: str = POLICY
    reference_share: float = 0.0
