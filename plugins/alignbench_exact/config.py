"""Options of the exact world; the only place where their defaults stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from alignbench import UserError


@dataclass
class ExactDataConfig:
    """A world whose every response can be written down: the optimum is known exactly; no download."""

    annotator: ClassVar[str] = "exact"
    declines: ClassVar[Mapping[str, str]] = {
        "held_out_conversations_teach_nothing": "every context is trained on and evaluated on: what is measured is optimisation"
    }

    length: int = 2
    """Tokens of the longest response, its end-of-sequence token included: 2 or 3."""
    beta: float = 1.0
    """Price of one nat of KL in the objective E[r] - beta KL(pi || pi_ref), in units of the reward (of sd 1)."""
    letters: int = 6
    """Words of the language, 2 to 12; with `length` they make letters^length responses, and some more."""
    contexts: int = 4
    """Different prompts. They are trained on and evaluated on alike: what is measured is optimisation."""
    world_seed: int = 0
    """Draws rewards and the demonstrator: the world is the same whatever the run's seed."""
    train_prompts: int = 1024
    """Training prompts: the contexts, over and over."""
    demonstrations: int = 8192
    """Demonstrations, drawn with the run's seed."""
    uncovered: float = 0.0
    """Share of the responses that neither demonstrations nor recorded rankings ever show (arXiv 2404.10719)."""
    recorded_rankings: int = 1024
    """Recorded rankings of four covered responses each, for annotator=recorded."""

    def __post_init__(self) -> None:
        if self.length not in (2, 3):
            raise UserError(f"data.length={self.length}: choose 2 or 3; longer responses are too many to write down.")
        if not self.beta > 0:
            raise UserError(f"data.beta={self.beta} must be above 0: without a price on KL there is no single optimum.")
        if not 2 <= self.letters <= 12:
            raise UserError(f"data.letters={self.letters}: choose 2 to 12.")
        if not 1 <= self.contexts <= self.letters**2:
            raise UserError(f"data.contexts={self.contexts}: choose 1 to letters^2 = {self.letters**2}.")
        if self.train_prompts < self.contexts or self.demonstrations < 1 or self.recorded_rankings < 2:
            raise UserError(
                f"data.train_prompts={self.train_prompts} must reach contexts={self.contexts}, data.demonstrations 1 "
                "and data.recorded_rankings 2."
            )
        if not 0 <= self.uncovered <= 0.8:
            raise UserError(f"data.uncovered={self.uncovered} is a share: choose 0 to 0.8.")


@dataclass
class ExactAnnotatorConfig:
    """Annotator of data=exact: Plackett-Luce on the true rewards, so each pair is Bradley-Terry on them."""


@dataclass
class ExactEvaluationConfig:
    """Distance to the exact optimum, where every response can be written down (data=exact)."""
