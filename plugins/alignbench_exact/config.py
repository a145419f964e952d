"""Options of the exact world; the only place where their defaults stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from alignbench import UserError, bounded


@dataclass
class ExactDataConfig:
    """A world whose every response can be written down: the optimum is known exactly; no download."""

    annotator: ClassVar[str] = "exact"
    kl_price: ClassVar[str] = "beta"
    declines: ClassVar[Mapping[str, str]] = {
        "held_out_conversations_teach_nothing": "every context is trained on and evaluated on: what is measured is optimisation"
    }

    length: int = bounded(2, least=2, most=3)
    """Tokens of the longest response, its end-of-sequence token included: 2 or 3."""
    beta: float = bounded(1.0, least=1e-3, most=1e3)
    """Price of one nat of KL in the objective E[r] - beta KL(pi || pi_ref), in units of the reward (of sd 1)."""
    letters: int = bounded(6, least=2, most=12)
    """Words of the language, 2 to 12; with `length` they make letters^length responses, and some more."""
    contexts: int = bounded(4, least=1, most=144)
    """Different prompts. They are trained on and evaluated on alike: what is measured is optimisation."""
    world_seed: int = bounded(0, least=0, most=1e18)
    """Draws rewards and the demonstrator: the world is the same whatever the run's seed."""
    train_prompts: int = bounded(1024, least=1, most=1e8)
    """Training prompts: the contexts, over and over."""
    demonstrations: int = bounded(8192, least=1, most=1e8)
    """Demonstrations, drawn with the run's seed."""
    uncovered: float = bounded(0.0, least=0, most=0.8)
    """Share of the responses that neither demonstrations nor recorded rankings ever show (arXiv 2404.10719)."""
    recorded_rankings: int = bounded(1024, least=2, most=1e8)
    """Recorded rankings of four covered responses each, for annotator=recorded."""

    def __post_init__(self) -> None:
        if self.contexts > self.letters**2:
            raise UserError(f"data.contexts={self.contexts}: choose 1 to letters^2 = {self.letters**2}.")
        if self.train_prompts < self.contexts:
            raise UserError(f"data.train_prompts={self.train_prompts} must reach data.contexts={self.contexts}.")


@dataclass
class ExactAnnotatorConfig:
    """Annotator of data=exact: Plackett-Luce on the true rewards, so each pair is Bradley-Terry on them."""


@dataclass
class ExactEvaluationConfig:
    """Distance to the exact optimum, where every response can be written down (data=exact)."""
