"""Options of the built-in evaluations: the only place where their defaults stand."""

from dataclasses import dataclass


@dataclass
class HelpfulnessConfig:
    """Gold reward, accuracy and win rate against the SFT model, where the truth is known."""


@dataclass
class SycophancyConfig:
    """How often a wrong opinion of the user is repeated, and what it costs in accuracy."""


@dataclass
class DiversityConfig:
    """How different the responses to one prompt are: entropy, distinct n-grams, self-BLEU, unique responses."""

    self_bleu_prompts: int = 150
    """Prompts that self-BLEU is computed on, it being the one slow metric; 0: all of them."""


@dataclass
class OptimizationConfig:
    """What the optimisation did: proxy against gold reward, KL from the SFT model, length, finished responses."""
