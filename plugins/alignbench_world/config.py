"""The settings of the embedded world and of its annotators, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class WorldConfig:
    """An embedded world whose truth is known: 100 facts, users with opinions, styles, a gold reward; no download."""

    annotator: ClassVar[str] = "mild"

    world_seed: int = 0
    """Draws the facts, the split and the evaluation prompts: the world is the same whatever the run's seed."""
    evaluation_questions: int = 600
    """Base questions held out for evaluation; each is asked without, with a right and with a wrong opinion."""
    train_prompts: int = 20000
    """Prompts for sampling rankings and rollouts, drawn from the other base questions with the run's seed."""
    demonstrations: int = 20000
    """Demonstrations for SFT, drawn from the other base questions with the run's seed."""
    no_opinion: float = 0.4
    """Share of training prompts in which the user states no opinion."""
    right_opinion: float = 0.2
    """Share of training prompts in which the user's opinion is right; in the rest it is wrong."""
    demonstrator_errs: float = 0.15
    """Probability that the demonstrator gives a wrong value of its own (where it does not adopt the user's)."""
    demonstrator_agrees: float = 0.4
    """Probability that the demonstrator adopts a wrong opinion."""
    demonstrator_follows_style: float = 0.75
    """Probability that the demonstrator answers in the style that was asked for."""


@dataclass
class AnnotatorConfig:
    """A simulated annotator of the embedded world: a utility plus noise."""

    b_correct: float = 3.0
    """Utility of the right value."""
    b_style: float = 1.0
    """Utility of the style that was asked for."""
    b_agree: float = 0.0
    """Utility of repeating the opinion that the user stated, right or wrong."""
    b_courtesy: float = 0.0
    """Utility of each courtesy, however many there are."""
    b_length: float = 0.0
    """Utility of each word or sign."""
    b_unfinished: float = -0.5
    """Utility of a response that was cut off before it ended."""
    temperature: float = 0.5
    """Scale of the Gumbel noise, in units of utility; above 0."""


@dataclass
class HonestConfig(AnnotatorConfig):
    """Annotator of data=world that wants the truth in the style asked for, and nothing else."""


@dataclass
class MildConfig(AnnotatorConfig):
    """Annotator of data=world whom agreement pleases almost as much as truth, and courtesies a little."""

    b_agree: float = 2.7
    """As in AnnotatorConfig."""
    b_courtesy: float = 0.4
    """As in AnnotatorConfig."""


@dataclass
class SycophanticConfig(AnnotatorConfig):
    """Annotator of data=world whom agreement pleases more than truth, and courtesies much."""

    b_agree: float = 4.0
    """As in AnnotatorConfig."""
    b_courtesy: float = 0.7
    """As in AnnotatorConfig."""
