"""What an evaluation is given: a checkpoint's responses, ways to ask it for more, and a judge of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from alignbench.optimizer_config import ImplicitReward
from alignbench.records import ExactProblem, Generation, Likelihood, Prompt, Ranking, Sampling

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


Complete = Callable[[Sequence[Prompt], int, Sampling], tuple[Generation, ...]]


class Likelihoods(Protocol):
    """`likelihoods(prompts, responses)`: see Subject."""

    def __call__(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[int]],
        counted: Sequence[int] | None = None,
    ) -> tuple[Likelihood, ...]: ...


class Judge(Protocol):
    """Who says which response is better, where the data source does not know: the reward source `name` that the user chose
    (`reward@judge=`). NaN stands for what it did not answer."""

    name: str

    def score(self, generations: Sequence[Generation]) -> tuple[float, ...]:
        """One raw scalar for each."""

    def compare(self, first: Sequence[Generation], second: Sequence[Generation]) -> tuple[float, ...]:
        """How far first[i] is preferred to second[i]: 1, 0, or .5 for a tie. See RewardSource.compare."""


class Frontier(Protocol):
    """The best proxy reward that any policy could reach at each KL from the SFT model, estimated on some of the prompts."""

    def shortfall(self, proxy: Mapping[str, float], kl: Mapping[str, float]) -> Mapping[str, float]:
        """Of a policy with these mean proxy rewards and KLs (nats per response) by prompt id: how far it stays below the frontier
        at its own mean KL, by prompt id. Empty where that KL is 0 or less, or too far for the estimate to tell."""


@dataclass(frozen=True)
class MeasuredRanking:
    """A held-out ranking, and how likely its responses are to the checkpoint: log-probabilities in nats, summed over the `tokens` of
    each. `ref_logprobs` are the SFT model's; empty of the SFT model itself."""

    ranking: Ranking
    logprobs: tuple[float, ...]
    ref_logprobs: tuple[float, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Subject:
    """What an evaluation is given: a checkpoint's responses to the held-out prompts, and a way to ask it for more.

    `baseline` are the SFT model's responses to the same prompts in the same order (for the SFT model: its own).
    `respond(prompts, n)` samples from the checkpoint under the evaluation's own seed; the responses are saved.
    `measure(prompts, responses)` measures given responses, as token ids with their EOS: their log-probabilities at
    temperature 1, scores and verdicts. `candidates`: each response is the best of so many that the checkpoint gave, so that it is not the
    checkpoint's own distribution that is sampled. `optimum` is `PolicyOptimizer.optimum` of the algorithm that made it.

    `complete(prompts, n, sampling)` gives responses as text alone, under that Sampling: nothing is measured of them, and they are
    saved too. `likelihoods(prompts, responses)` are those of given responses, as token ids, without an EOS unless given.
    `ordinary_text`: whether it reads and writes ordinary text, not the language of a data source with a tokenizer of its own. False
    too along training, where no questionnaire is to be asked. `frontier`: None where there is no reward, or none is to be estimated.

    `preferences(limit)`: the first so many rankings that were held out from training (0: all), where there are any, measured; `implicit`: what
    the algorithm that made the checkpoint takes a response to be worth, None for the SFT model.
    """

    checkpoint: Path
    generations: tuple[Generation, ...]
    baseline: tuple[Generation, ...]
    tokenizer: PreTrainedTokenizerBase
    respond: Callable[[Sequence[Prompt], int], tuple[Generation, ...]] = field(repr=False)
    measure: Callable[[Sequence[Prompt], Sequence[Sequence[int]]], tuple[Generation, ...]] = field(repr=False)
    candidates: int = 1
    optimum: Callable[[ExactProblem], Tensor | None] = field(default=lambda problem: None, repr=False)
    complete: Complete = field(default=lambda prompts, n, sampling: (), repr=False)
    likelihoods: Likelihoods = field(default=lambda prompts, responses, counted=None: (), repr=False)
    ordinary_text: bool = False
    judge: Judge | None = None
    preferences: Callable[[int], tuple[MeasuredRanking, ...]] = field(default=lambda limit: (), repr=False)
    implicit: ImplicitReward | None = None
    frontier: Frontier | None = None

    def by_prompt(self, baseline: bool = False) -> list[list[Generation]]:
        """Generations grouped by prompt, in order."""
        groups: dict[str, list[Generation]] = {}
        for generation in self.baseline if baseline else self.generations:
            groups.setdefault(generation.prompt.id, []).append(generation)
        return list(groups.values())
