"""Options of the built-in optimizers and schedules. What all have in common (rate, decay, epsilon) stands in OptimizerConfig."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alignbench.bounds import bounded


@dataclass
class AdamWConfig:
    """AdamW of torch, with betas of .9 and .999 (arXiv 1711.05101)."""


@dataclass
class PagedAdamW8bitConfig:
    """AdamW of bitsandbytes, its moments in 8 bits, in pages that move to the host where memory runs short (CUDA alone)."""

    state_bytes: ClassVar[float] = 2


@dataclass
class MuonConfig:
    """Muon of torch for matrices, AdamW for all other weights (Jordan 2024; arXiv 2502.16982)."""

    momentum: float = bounded(0.95, least=0, below=1)
    """Share of the momentum that stays from one step to the next; matrices alone."""
    nesterov: bool = True
    """Whether the step looks ahead along the momentum."""
    orthogonalisation_steps: int = bounded(5, least=1, most=99)
    """Newton-Schulz iterations that make the momentum of a matrix nearly orthogonal."""

    state_bytes: ClassVar[float] = 8
    """An upper bound: matrices have one moment, 4 bytes, and all other weights two."""
    ready: ClassVar[str] = "alignbench.optimization.muon:check_there"


@dataclass
class ScheduleFreeConfig:
    """Schedule-free AdamW: the average of its iterates takes the schedule's place (arXiv 2405.15682)."""

    beta: float = bounded(0.9, above=0, below=1)
    """Where gradients are taken: so far from the newest iterate (0) towards the average (1)."""

    state_bytes: ClassVar[float] = 12
    """The second moment, the newest iterate and, while gradients are taken, the average."""


@dataclass
class ConstantConfig:
    """The whole learning rate at every update."""


@dataclass
class LinearConfig:
    """Falls by the same amount at every update."""

    final: float = bounded(0.0, least=0, most=1)
    """Share of the learning rate at the end."""


@dataclass
class CosineConfig:
    """Falls as half a cosine: slowly, fast, slowly (arXiv 1608.03983, without restarts)."""

    final: float = bounded(0.0, least=0, most=1)
    """Share of the learning rate at the end."""


@dataclass
class WSDConfig:
    """Stays, and falls linearly over the last part: warm-up, stable, decay (arXiv 2404.06395)."""

    decay: float = bounded(0.2, above=0, most=1)
    """The last part, as a share of the updates after the warm-up."""
    final: float = bounded(0.0, least=0, most=1)
    """Share of the learning rate at the end."""
