"""The options of this plugin's components: the only place where their defaults stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alignbench import ImplicitReward, PreferenceConfig, RolloutConfig, StagePlace, bounded


@dataclass
class ReinforceConfig(RolloutConfig):
    """REINFORCE with a batch-mean baseline and the KL penalty in the reward."""

    updates: int = 40
    """Batches of rollouts; each gives one optimizer step."""
    batch_size: int = 128
    """Responses per update. The baseline is their mean, so a small batch makes a noisy one."""
    learning_rate: float = 3e-5
    """Of AdamW; a model trained from scratch bears much more."""
    kl_coef: float = bounded(0.1, least=0, most=1e4)
    """Price of one nat of KL per response, in units of the reward."""


@dataclass
class DPOPConfig(PreferenceConfig):
    """DPO-Positive: DPO that pays for making a chosen response less likely (arXiv 2402.13228)."""

    updates: int = 0
    """As in OptimizerConfig; a batch is `batch_size` pairs."""
    passes: float = 1.0
    """As in OptimizerConfig."""
    batch_size: int = 32
    """Pairs per update."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: memory only."""
    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in reward units per nat, as in DPO."""
    dpop_lambda: float = bounded(5.0, least=0, most=1e4)
    """Lambda: nats of margin for each nat by which the chosen response is less likely than under the reference; 0: DPO."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta)


@dataclass
class KeywordConfig:
    """1 for a response that contains a given word, else 0."""

    word: str = "yes"
    """The word, whole and in either case."""


@dataclass
class LionConfig:
    """Lion: each weight moves by the sign of its momentum (arXiv 2302.06675)."""

    beta_1: float = bounded(0.9, least=0, below=1)
    """Share of the momentum in what a step follows."""
    beta_2: float = bounded(0.99, least=0, below=1)
    """Share of the momentum that stays from one step to the next."""

    state_bytes: ClassVar[float] = 4


@dataclass
class StaircaseConfig:
    """Falls by the same factor several times, and stays in between."""

    stairs: int = bounded(4, least=1, most=1000)
    """Into how many parts of equal length the updates are divided."""
    factor: float = bounded(0.5, above=0, most=1)
    """What the learning rate is multiplied by from one part to the next."""


@dataclass
class RereadConfig:
    """Reads the whole text again for every token: a decoding loop without a cache."""


@dataclass
class SayConfig:
    """How often the trained policy says a word."""

    place: ClassVar[StagePlace] = StagePlace.AFTER_ALGORITHM

    word: str = "yes"
    """The word, whole and in either case."""
    prompts: int = bounded(64, least=1, most=1e6)
    """Training prompts that it responds to, once each."""


@dataclass
class StarsConfig:
    """Answers to a question, each with its stars."""

    most: int = bounded(5, least=1, most=100)
    """Stars of the best answer; a row with more is damaged."""
