"""The contracts between the core and its plugins.

A component is built as `target(config, **wiring)`; each class below says which keyword arguments its kind is given.
A component never receives the run, another component's config or a path, beyond what stands here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from alignbench.errors import UserError, unknown_name
from alignbench.records import (
    Consumes,
    Demonstration,
    ExactProblem,
    ExampleScore,
    FitReport,
    Generation,
    MetricSpec,
    Prompt,
    Ranking,
    Rollout,
    Samples,
    Sampling,
    Sequences,
    Split,
    TokenScores,
    UpdateReport,
    Verdict,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

POLICY = "policy"
REFERENCE = "reference"
LR_SCHEDULES = ("constant", "linear", "cosine")
PAIRS = ("all", "best_worst")
MISSING_EOS = ("subtract", "replace", "keep")

Batch = TypeVar("Batch", contravariant=True)


class ScalarRole(ABC):
    """One number per state of a response, computed on (a copy or an adapter of) the policy's base: a value or a reward."""

    @abstractmethod
    def values(self, sequences: Sequences) -> Tensor:
        """[B, R + 1] float32, differentiable. Column t is read before response token t; the column after a row's
        last token reads the whole response. Columns beyond that are undefined and must be masked."""

    @abstractmethod
    def parameters(self) -> list[torch.nn.Parameter]:
        """What to train, head included."""

    @abstractmethod
    def save(self, path: Path) -> None: ...

    @abstractmethod
    def load(self, path: Path) -> None: ...


class Policy(ABC):
    """Tokens, generation, log-probabilities under the policy and under its frozen reference, saving and loading.

    It knows no algorithm and no reward. An optimizer written against it runs unchanged on a tiny full model and on a
    4-bit model with adapters: it never sees an adapter, a quantised layer or a padding side.
    Built with: tokenizer (from the data source, or None), device, seeds.
    """

    tokenizer: PreTrainedTokenizerBase
    device: torch.device  # where its tokens and scores live; `rng` arguments are on it too
    pretrained: bool  # False: weights are random and the data source's lessons are learnt first
    max_prompt_tokens: int
    max_response_tokens: int

    @abstractmethod
    def encode(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, finished: Sequence[bool] | None = None
    ) -> Samples:
        """Tokenises given responses (cut at `max_response_tokens`), ending each with EOS where it is `finished` (default: all).

        Raises UserError for an empty prompt or one longer than `max_prompt_tokens`, naming it."""

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, n: int = 1, role: str = POLICY, rng: torch.Generator
    ) -> Rollout:
        """Samples n responses to each prompt from POLICY or REFERENCE, in the order of `records.expand`; a response ends
        at its first EOS."""

    @abstractmethod
    def logprobs(
        self, sequences: Sequences, *, role: str = POLICY, temperature: float = 1.0, entropy: bool = False
    ) -> TokenScores:
        """Log-probabilities of the response tokens, of logits / temperature. Differentiable for POLICY, frozen for REFERENCE.
        Call `backward` on one role's result before asking for another role with gradients."""

    @abstractmethod
    def freeze_reference(self) -> None:
        """Makes the policy as it stands now the frozen reference. Before the first call the reference is undefined."""

    @abstractmethod
    def scalar(self, name: str, *, init_from: str = POLICY) -> ScalarRole:
        """Creates a scalar role, started from the policy's present weights and a zero head, or from an existing scalar
        role (its head too). `name` must be new."""

    @abstractmethod
    def scalars(self) -> tuple[str, ...]:
        """The names of the scalar roles that exist: an optimizer starts its value network from the reward model if it is there."""

    @abstractmethod
    def trainable(self) -> list[torch.nn.Parameter]:
        """The policy's own trainable parameters."""

    @abstractmethod
    def prompt_tokens(self, prompt: Prompt) -> int:
        """Length of the formatted prompt, for filtering before anything is trained."""

    @abstractmethod
    def save(self, directory: Path) -> Path:
        """Writes `directory`/model or `directory`/adapter, loadable by transformers or peft alone, and returns it."""

    @abstractmethod
    def load(self, path: Path) -> None:
        """Replaces the policy's weights with those of a folder that `save` returned."""


class DataSource(ABC):
    """Demonstrations, prompts, rankings and, where the truth is known, a gold reward. Built with: seeds.

    Whatever it does not have stays empty; the core refuses a run that needs it before a model is loaded.
    """

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """A tokenizer for models built from scratch; None where the data is ordinary text."""
        return None

    def lessons(self) -> Sequence[Demonstration]:
        """What a model without pretraining learns first: knowledge that a real base model brings along."""
        return ()

    def demonstrations(self) -> Sequence[Demonstration]:
        return ()

    @abstractmethod
    def prompts(self, split: Split) -> Sequence[Prompt]:
        """TRAIN and EVALUATION prompts never overlap."""

    def rankings(self) -> Sequence[Ranking]:
        """Recorded human rankings, for an annotator that brings no judgement of its own."""
        return ()

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        """The truth about one response; None where it is not known. Must give None for all prompts or for none."""
        return None

    def counts(self) -> Mapping[str, int]:
        """Rows read, kept and set aside by reason: printed, and kept in result.json."""
        return {}


class Annotator(ABC):  # noqa: B024 (which method it needs depends on samples_responses)
    """Ranks K responses to a prompt. Built with: data, seeds."""

    samples_responses: ClassVar[bool] = True  # False: it brings rankings of its own and nothing is sampled

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool]) -> tuple[int, ...]:
        """The rank of each response, 0 is best, equal ranks are ties. Random choices come from the seeds it was built with."""
        raise NotImplementedError

    def preference(
        self, prompt: Prompt, first: str, second: str, *, finished: tuple[bool, bool] = (True, True)
    ) -> float | None:
        """The probability that this annotator prefers `first`, where it is known: gives reward models their ceiling."""
        return None

    def recorded(self) -> Sequence[Ranking]:
        """The rankings of an annotator with `samples_responses = False`."""
        return ()


class RewardSource(ABC):
    """One raw scalar per response. Built with: policy, data, seeds."""

    @classmethod  # noqa: B027 (most serve any data)
    def check_data(cls, config: Any, data: DataSource) -> None:
        """Raises UserError where this data cannot serve it. Called before a model is loaded."""

    @abstractmethod
    def score(self, samples: Samples) -> Tensor:
        """[B] float32 on the device of `samples`; no gradient. Raises NonFiniteError rather than return NaN or infinity."""


class FittableRewardSource(RewardSource):
    """A reward source that is fitted to rankings before it can score."""

    @abstractmethod
    def fit(
        self,
        rankings: Sequence[Ranking],
        held_out: Sequence[Ranking],
        baseline: Samples,
        *,
        annotator: Annotator,
        progress: Callable[[int, int, Mapping[str, float]], None],
    ) -> FitReport:
        """Trains on `rankings`, reports on `held_out`, and normalises itself on `baseline` (samples of the SFT model).
        Calls `progress(update, updates, metrics)` after each optimizer step."""

    @abstractmethod
    def save(self, path: Path) -> None: ...

    @abstractmethod
    def load(self, path: Path) -> None: ...


@dataclass
class AlgorithmConfig:
    """What the core asks of every algorithm's config, trained or not."""

    consumes: ClassVar[Consumes]

    @property
    def candidates(self) -> int:
        """Responses drawn for each response given, of which the one with the highest score is given (best-of-n)."""
        return 1

    @property
    def needs_scores(self) -> bool:
        """Whether a reward source must be there."""
        return self.consumes is Consumes.ROLLOUTS or self.candidates > 1


@dataclass
class OptimizerConfig(AlgorithmConfig):
    """Options of everything that is trained, spelled the same everywhere. An algorithm's config dataclass derives from
    it, or from RolloutConfig or PreferenceConfig."""

    updates: int = 100
    """How many batches the algorithm is given. 0 with `passes` set: as many as the data needs."""
    passes: float = 0.0
    """Passes over the data, for algorithms that consume recorded data; used where `updates` is 0."""
    batch_size: int = 64
    """Responses (or demonstrations, or pairs) per update."""
    micro_batch_size: int = 64
    """Rows per forward and backward pass: memory only, the result is the same up to floating-point order."""
    learning_rate: float = 1e-5
    """Of AdamW, at its highest."""
    lr_schedule: str = "linear"
    """constant, linear (to 0) or cosine (to 0), over all updates."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises linearly from 0."""
    weight_decay: float = 0.0
    """Of AdamW, decoupled from the gradient; 0: none."""
    adam_eps: float = 1e-5
    """1e-5 as in OpenAI's RLHF code: torch's 1e-8 makes the first updates larger (arXiv 2403.17031)."""
    max_grad_norm: float = 1.0
    """Gradient norm limit per role; 0: none."""

    def __post_init__(self) -> None:
        """Refuses what cannot work before anything is built. A subclass with rules of its own calls this one first."""
        for name in ("batch_size", "micro_batch_size"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name}={value} must be at least 1.")
        if self.updates < 0 or (self.updates == 0 and not self.passes > 0):
            raise UserError(f"updates={self.updates} and passes={self.passes}: one of them must be above 0.")
        if not (self.learning_rate >= 0 and math.isfinite(self.learning_rate)):
            raise UserError(f"learning_rate={self.learning_rate} must be a number from 0 up.")
        if self.lr_schedule not in LR_SCHEDULES:
            raise unknown_name("lr_schedule", self.lr_schedule, LR_SCHEDULES)


@dataclass
class RolloutConfig(OptimizerConfig):
    """Options of every algorithm that learns from scored samples."""

    consumes: ClassVar[Consumes] = Consumes.ROLLOUTS
    samples_from: ClassVar[str] = POLICY
    """Who is sampled: POLICY as it stands, or the frozen REFERENCE. A config may make it a field or a property."""

    samples_per_prompt: int = 1
    """Responses sampled for each prompt of a rollout, neighbours in it; batch_size must be a multiple of it."""
    temperature: float = 1.0
    """Of sampling, and of every log-probability that is compared with it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_per_prompt < 1:
            raise UserError(f"samples_per_prompt={self.samples_per_prompt} must be at least 1.")
        if self.batch_size % self.samples_per_prompt:
            raise UserError(
                f"batch_size={self.batch_size} must be a multiple of samples_per_prompt={self.samples_per_prompt}."
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(f"temperature={self.temperature} must be above 0.")


@dataclass
class PreferenceConfig(OptimizerConfig):
    """Options of every algorithm that learns from pairs of ranked responses."""

    consumes: ClassVar[Consumes] = Consumes.PREFERENCES
    uses_reference: ClassVar[bool] = True
    """Whether batches bring the reference's log-probabilities, computed once for all pairs."""

    pairs: str = "all"
    """The pairs of a ranking: all of them, or best_worst (the first against the last)."""

    @property
    def needs_probabilities(self) -> bool:
        """Whether it learns from the annotator's own P(chosen preferred); refused where the annotator knows none."""
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs not in PAIRS:
            raise unknown_name("pairs", self.pairs, PAIRS)


class PolicyOptimizer(ABC, Generic[Batch]):
    """One algorithm: consumes batches of what its config declares and updates the policy.

    It loads no model, reads no file, writes no result. Built with: policy, updates (how many batches will come), seeds.
    """

    @classmethod
    def optimum(cls, config: Any, problem: ExactProblem) -> Tensor | None:
        """The distribution that this algorithm, with exactly these settings, converges to where everything is known:
        [X, Y] float64, rows sum to 1. None where theory gives none for them. The exact world and the conformance kit
        measure the algorithm against it."""
        return None

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """Options, by name, under which `optimum` is reached, where the defaults trade it for something else."""
        return {}

    @abstractmethod
    def update(self, batch: Batch) -> UpdateReport:
        """One update. Raises NonFiniteError before stepping if a reward, a loss or a gradient is not finite."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if never stopped (the policy's weights excluded)."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Subject:
    """What an evaluation is given: a checkpoint's responses to the held-out prompts, and a way to ask it for more.

    `baseline` are the SFT model's responses to the same prompts in the same order (for the SFT model: its own).
    `respond(prompts, n)` samples from the checkpoint under the evaluation's own seed; the responses are saved.
    `measure(prompts, responses)` measures given responses, as token ids with their EOS: their log-probabilities, scores
    and verdicts. `candidates`: each response is the best of so many that the checkpoint gave, so that it is not the
    checkpoint's own distribution that is sampled. `optimum` is `PolicyOptimizer.optimum` of the algorithm that made it.
    """

    checkpoint: Path
    generations: tuple[Generation, ...]
    baseline: tuple[Generation, ...]
    tokenizer: PreTrainedTokenizerBase
    respond: Callable[[Sequence[Prompt], int], tuple[Generation, ...]] = field(repr=False)
    measure: Callable[[Sequence[Prompt], Sequence[Sequence[int]]], tuple[Generation, ...]] = field(repr=False)
    candidates: int = 1
    optimum: Callable[[ExactProblem], Tensor | None] = field(default=lambda problem: None, repr=False)

    def by_prompt(self, baseline: bool = False) -> list[list[Generation]]:
        """Generations grouped by prompt, in order."""
        groups: dict[str, list[Generation]] = {}
        for generation in self.baseline if baseline else self.generations:
            groups.setdefault(generation.prompt.id, []).append(generation)
        return list(groups.values())


class Evaluation(ABC):
    """Per-example scores of a checkpoint. It sees neither the live policy nor the algorithm's name. Built with: nothing."""

    @abstractmethod
    def specs(self) -> Sequence[MetricSpec]:
        """Every metric that `evaluate` may return."""

    @abstractmethod
    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        """Scores per example. A metric that does not apply to the data is left out, never filled with zeros."""


class Tracker(ABC):
    """Where training curves go. Built with: directory, run_name, settings (the resolved config)."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    @abstractmethod
    def finish(self) -> None: ...
