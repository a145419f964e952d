"""Configs of the verifiable reward, its annotator, its world and its evaluation; the only place where their defaults stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from alignbench import UserError, bounded, unknown_name

AUTO = "auto"
WORDINGS = ("signs", "words")


@dataclass
class CheckingConfig:
    """How responses are checked against references."""

    ready: ClassVar[str] = "alignbench_verify.checks.registry:ready"

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
    cpu_seconds: float = bounded(2.0, above=0, most=1e5)
    """Most CPU time that one check of one response may take, in seconds; over it the response is wrong. A check that waits in
    place of computing is ended after five times as long."""
    memory: int = bounded(512, least=64, most=1e7)
    """Most memory that one check may take, in MiB; over it the response is wrong."""
    workers: int = bounded(2, least=1, most=1000)
    """Responses checked at once, where a check needs a process of its own: speed only."""

    def names(self) -> list[str]:
        """Of the checks that are made."""
        return []


@dataclass
class VerifyConfig(CheckingConfig):
    """Right or wrong by the row's reference: no reward model, nothing to be learnt."""

    checks: dict[str, float] = bounded({}, least=-1e4, most=1e4, nonzero=True)
    """The weight of each check, by name, as {number: 1.0, regex: 0.2}; a response scores the sum over those that it passes. exact,
    number, choice, math, regex, json_schema, constraints, python, or auto: the one that each row's reference is for. Empty: {auto: 1.0}."""

    @property
    def weights(self) -> dict[str, float]:
        """Of every check that is made."""
        return self.checks or {AUTO: 1.0}

    def names(self) -> list[str]:
        return list(self.weights)


@dataclass
class VerifiedConfig(CheckingConfig):
    """Share of prompts answered right, by their references: pass@1 and pass@k."""

    checks: list[str] = field(default_factory=lambda: [AUTO])
    """Names of checks, as of reward=verify; a response is right where it passes all of them."""
    subsets: list[str] = field(default_factory=list)
    """Subsets of the data (topics, difficulties) that have metrics of their own, beside those of all prompts."""

    def names(self) -> list[str]:
        return self.checks

    def __post_init__(self) -> None:
        if not self.checks:
            raise UserError("eval.options.verified.checks is empty: name one, as auto.")


@dataclass
class ReferenceConfig(CheckingConfig):
    """Annotator that prefers what passes a row's check to what does not, and calls the rest a tie: pairs for DPO."""

    checks: list[str] = field(default_factory=lambda: [AUTO])
    """Names of checks, as of reward=verify; a response is right where it passes all of them."""

    def names(self) -> list[str]:
        return self.checks


@dataclass
class ArithmeticConfig:
    """An embedded world of sums whose answers can be verified, by difficulty; no download."""

    wording: str = "signs"
    """How a sum is asked: signs (27+38=, a digit a token, for models that are made here) or words (What is 27 plus 38?,
    and shown as 27 + 38 = 65, for models that bring a tokenizer: the number that a response comes to is what counts)."""
    world_seed: int = bounded(0, least=0, most=1e18)
    """Draws which sums are held out: the split is the same whatever the run's seed."""
    evaluation_prompts: int = bounded(300, least=6, most=3000)
    """Sums held out for evaluation, at most a third of them of each difficulty; so many that some of each are held out, and enough
    left to learn from."""
    train_prompts: int = bounded(20000, least=1, most=1e8)
    """Prompts for rollouts and rankings, drawn from the other sums with the run's seed."""
    demonstrations: int = bounded(20000, least=1, most=1e8)
    """Demonstrations for SFT, drawn from the other sums with the run's seed."""
    demonstrator_errs: float = bounded(0.5, least=0, most=1)
    """Probability that the demonstrator makes a mistake: it forgets a carry where there is one, else a digit is one off."""

    def __post_init__(self) -> None:
        if self.wording not in WORDINGS:
            raise unknown_name("data.wording", self.wording, WORDINGS)
