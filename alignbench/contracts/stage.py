"""The contract of a stage of one's own between those of a run: what it is given, and what it gives. See `contracts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignbench.contracts.sources import DataSource
from alignbench.records import (
    POLICY,
    Demonstration,
    Prompt,
    Ranking,
    Rollout,
    Samples,
    Sampling,
    Sequences,
    TokenScores,
)
from alignbench.records.stages import StageResult

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from alignbench.contracts import Policy


class PolicyReader:
    """A policy as a stage sees it: it samples and measures, and nothing of it can be changed. Its methods are those of `Policy`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the policy."""
        return self._policy.tokenizer

    @property
    def device(self) -> torch.device:
        """Where its tokens and scores live."""
        return self._policy.device

    @property
    def max_prompt_tokens(self) -> int:
        """Of a prompt that is trained on."""
        return self._policy.max_prompt_tokens

    @property
    def max_response_tokens(self) -> int:
        """Of a response that is trained on."""
        return self._policy.max_response_tokens

    def prompt_tokens(self, prompt: Prompt) -> int:
        """As Policy.prompt_tokens."""
        return self._policy.prompt_tokens(prompt)

    def encode(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, finished: Sequence[bool] | None = None
    ) -> Samples:
        """As Policy.encode."""
        return self._policy.encode(prompts, responses, finished=finished)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, n: int = 1, role: str = POLICY, rng: torch.Generator
    ) -> Rollout:
        """As Policy.generate. Before SFT there is no REFERENCE."""
        return self._policy.generate(prompts, sampling, n=n, role=role, rng=rng)

    def logprobs(self, sequences: Sequences, *, role: str = POLICY, temperature: float = 1.0) -> TokenScores:
        """As Policy.logprobs, without gradients."""
        import torch

        with torch.no_grad():
            return self._policy.logprobs(sequences, role=role, temperature=temperature)


@dataclass(frozen=True)
class StageView:
    """What a stage is given, to read. What its place in the run does not have yet is empty, or None.

    `prompts`: training prompts that fit the policy's window. `demonstrations`: what SFT imitates, as the stages before this one left it.
    `rankings`: those that are learnt from; `held_out`: those that are not. `score`: the reward source's scores [B] float32 of samples, where the
    run has one. `folder`: an empty folder; what is written there is kept in the run's directory, as stages/<name>."""

    policy: PolicyReader
    data: DataSource
    folder: Path
    prompts: tuple[Prompt, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    held_out: tuple[Ranking, ...] = ()
    score: Callable[[Samples], Tensor] | None = None


class Stage(ABC):
    """A stage between those of a run, named in `stages`. Built with: seeds.

    It runs once for all runs that have the same before it, and is read back by the others. Its config declares `place`, and in `needs` the
    fields of StageView that it cannot do without (`demonstrations`, `rankings`, `held_out`, `score`): a run that lacks one is refused before a
    model is loaded.
    """

    @abstractmethod
    def run(self, view: StageView) -> StageResult:
        """Does the work. What it raises ends the run, with a line that names the stage and its plugin."""
