"""Configs of the verifiable reward, its annotator, its world and its evaluation; the only place where their defaults stand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from alignbench import UserError

AUTO = "auto"


@dataclass
class CheckingConfig:
    """How responses are checked against references."""

    inert: ClassVar[Mapping[str, str]] = {
        "cpu_seconds": "it limits what checks may take, and changes no answer that comes in time"
    }

    pattern: str = ""
    """What the check `regex` looks for, anywhere in a response; empty: each row's reference answer."""
    schema: str = ""
    """What the check `json_schema` holds a response to: a JSON schema as text, or the path of a file with one; empty: each row's
    reference answer."""
    unfinished: bool = False
    """Whether a response that was cut off is checked too; otherwise it is wrong."""
    cpu_seconds: float = 2.0
    """Most CPU time that one check of one response may take, in seconds; over it the response is wrong. A check that waits in
    place of computing is ended after five times as long."""
    memory: int = 512
    """Most memory that one check may take, in MiB; over it the response is wrong."""
    workers: int = 2
    """Responses checked at once, where a check needs a process of its own: speed only."""

    def __post_init__(self) -> None:
        if not (self.cpu_seconds > 0 and math.isfinite(self.cpu_seconds)):
            raise UserError(f"cpu_seconds={self.cpu_seconds} must be above 0.")
        if self.memory < 64:
            raise UserError(f"memory={self.memory} must be at least 64 MiB: a check is a program.")
        if self.workers < 1:
            raise UserError(f"workers={self.workers} must be at least 1.")


@dataclass
class VerifyConfig(CheckingConfig):
    """Right or wrong by the row's reference: no reward model, nothing to be learnt."""

    checks: dict[str, float] = field(default_factory=dict)
    """The weight of each check, by name, as {number: 1.0, regex: 0.2}; a response scores the sum over those that it passes. exact,
    number, choice, math, regex, json_schema, constraints, python, or auto: the one that each row's reference is for. Empty: {auto: 1.0}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, weight in self.checks.items():
            if weight == 0 or not math.isfinite(weight):
                raise UserError(f"reward.checks.{name}={weight} must be a number other than 0: leave the check out.")

    @property
    def weights(self) -> dict[str, float]:
        """Of every check that is made."""
        return self.checks or {AUTO: 1.0}


@dataclass
class VerifiedConfig(CheckingConfig):
    """Share of prompts answered right, by their references: pass@1 and pass@k."""

    checks: list[str] = field(default_factory=lambda: [AUTO])
    """Names of checks, as of reward=verify; a response is right where it passes all of them."""
    subsets: list[str] = field(default_factory=list)
    """Subsets of the data (topics, difficulties) that have metrics of their own, beside those of all prompts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.checks:
            raise UserError("eval.options.verified.checks is empty: name one, as auto.")


@dataclass
class ReferenceConfig(CheckingConfig):
    """Annotator that prefers what passes a row's check to what does not, and calls the rest a tie: pairs for DPO."""

    checks: list[str] = field(default_factory=lambda: [AUTO])
    """Names of checks, as of reward=verify; a response is right where it passes all of them."""


@dataclass
class ArithmeticConfig:
    """An embedded world of sums whose answers can be verified, by difficulty; no download."""

    world_seed: int = 0
    """Draws which sums are held out: the split is the same whatever the run's seed."""
    evaluation_prompts: int = 300
    """Sums held out for evaluation, at most a third of them of each difficulty."""
    train_prompts: int = 20000
    """Prompts for rollouts and rankings, drawn from the other sums with the run's seed."""
    demonstrations: int = 20000
    """Demonstrations for SFT, drawn from the other sums with the run's seed."""
    demonstrator_errs: float = 0.5
    """Probability that the demonstrator makes a mistake: it forgets a carry where there is one, else a digit is one off."""

    def __post_init__(self) -> None:
        if not 0 <= self.demonstrator_errs <= 1:
            raise UserError(
                f"data.demonstrator_errs={self.demonstrator_errs} is not a probability: choose a number from 0 to 1."
            )
        for name in ("train_prompts", "demonstrations"):
            if (number := getattr(self, name)) < 1:
                raise UserError(f"data.{name}={number} leaves nothing to train on: choose 1 or more.")
        if not 6 <= self.evaluation_prompts <= 3000:
            raise UserError(
                f"data.evaluation_prompts={self.evaluation_prompts} must be 6 to 3000: some of each difficulty, and "
                "enough sums left to learn from."
            )
