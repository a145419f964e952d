"""The contracts between the core and its plugins.

A component is built as `target(config, **wiring)`; each class below says which keyword arguments its kind is given.
A component never receives the run, another component's config or a path, beyond what stands here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from alignbench.contracts.progress import Progress as Progress
from alignbench.contracts.sources import Annotator as Annotator
from alignbench.contracts.sources import DataSource as DataSource
from alignbench.contracts.watching import Evaluation as Evaluation
from alignbench.contracts.watching import Tracker as Tracker
from alignbench.errors import UserError
from alignbench.records import (
    POLICY,
    ExactProblem,
    Exported,
    FitReport,
    Prompt,
    Ranking,
    RewardParts,
    Rollout,
    Samples,
    Sampling,
    Sequences,
    TokenScores,
    UpdateReport,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Batch = TypeVar("Batch", contravariant=True)
Watch = Callable[[Sequence[Sequence[int]]], None]
"""What somebody is shown while responses are sampled: the token ids of each so far."""


class ScalarRole(ABC):
    """One number per state of a response, computed on (a copy or an adapter of) the policy's base: a value or a reward."""

    reads_policy: bool = False
    """Whether it reads the policy's own states, so that `Policy.logprobs_and_values` makes them once for both. One backward
    pass over both results is then cheaper than two; everywhere else two hold less at a time."""

    @abstractmethod
    def values(self, sequences: Sequences) -> Tensor:
        """[B, R + 1] float32, differentiable. Column t is read before response token t; the column after a row's
        last token reads the whole response. Columns beyond that are undefined and must be masked."""

    @abstractmethod
    def parameters(self) -> list[torch.nn.Parameter]:
        """What to train, head included."""

    @abstractmethod
    def rescale(self, shift: float, scale: float) -> None:
        """Its values become `(value - shift) / scale`, by its weights: saved with them, and taken over by a role that starts
        from this one."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Writes its weights, head and scale included, into the folder `path`."""

    @abstractmethod
    def load(self, path: Path) -> None:
        """Takes over what `save` wrote into that folder, bit for bit. Raises UserError for weights of another model."""


class Policy(ABC):
    """Tokens, generation, log-probabilities under the policy and under its frozen reference, saving and loading.

    It knows no algorithm and no reward. An optimizer written against it runs unchanged on a tiny full model and on a
    4-bit model with adapters: it never sees an adapter, a quantised layer or a padding side.
    Built with: tokenizer (from the data source, or None), device, seeds.
    """

    tokenizer: PreTrainedTokenizerBase
    device: torch.device  # where its tokens and scores live; `rng` arguments are generators of the CPU
    pretrained: bool  # False: weights are random and the data source's lessons are learnt first
    max_prompt_tokens: int
    max_response_tokens: int
    mixes_reference: bool = False  # whether `generate` heeds `Sampling.reference_share`

    @property
    def window(self) -> int:
        """Most tokens of a prompt and its response together; what is trained on stays within the two limits above."""
        return self.max_prompt_tokens + self.max_response_tokens

    @abstractmethod
    def encode(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, finished: Sequence[bool] | None = None
    ) -> Samples:
        """Tokenises given responses (cut at `max_response_tokens`), ending each with EOS where it is `finished` (default: all).

        Raises UserError for an empty prompt or one longer than `max_prompt_tokens`, naming it."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens any of which ends a response (EOS, wherever these contracts speak of it). The first is the one that responses
        given as text end with."""
        return (self.tokenizer.eos_token_id,)

    def response_tokens(self, responses: Sequence[str], finished: Sequence[bool]) -> list[list[int]]:
        """Token ids of responses given as text, each with its EOS where it is finished; they are not cut."""
        rows = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"] if responses else []
        return [[*row, self.eos_token_ids[0]] if end else row for row, end in zip(rows, finished, strict=True)]

    def response_texts(self, rows: Sequence[Sequence[int]]) -> tuple[str, ...]:
        """What responses given as token ids say, as in the `Samples` that `generate` gives."""
        return tuple(self.tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=True))

    def given(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[int]]) -> Sequences:
        """Responses that are given as token ids, EOS included where they end by themselves. For measuring, not for training:
        they may be as long as the window allows. Raises UserError beyond it."""
        import torch

        asked = self.encode(prompts, [""] * len(prompts)).sequences
        width = max(max(len(row) for row in responses), 1)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in responses], device=self.device)
        lengths = torch.tensor([len(row) for row in responses], device=self.device)
        mask = torch.arange(width, device=self.device)[None] < lengths[:, None]
        return Sequences(asked.prompt_ids, asked.prompt_mask, ids, mask)

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, n: int = 1, role: str = POLICY, rng: torch.Generator
    ) -> Rollout:
        """Samples n responses to each prompt from POLICY or REFERENCE, in the order of `records.expand`; a response ends
        at its first EOS. With `sampling.max_new_tokens` prompts may be as long as the window leaves room for.

        All chance comes from `rng`. An engine that draws by random numbers of its own is given a seed from it for each response: it
        repeats itself as far as the engine does, its tokens are others than those of another sampler, and its rollouts say
        `off_policy`."""

    def generate_watched(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        watch: Watch,
        *,
        n: int = 1,
        role: str = POLICY,
        rng: torch.Generator,
    ) -> Rollout:
        """`generate`, for people who watch: whenever a policy has more, `watch` is told the token ids of all responses so far. What it
        raises ends the sampling. Here they are told once, at the end."""
        rollout = self.generate(prompts, sampling, n=n, role=role, rng=rng)
        sequences = rollout.samples.sequences
        lengths = sequences.response_mask.sum(1).tolist()
        watch([row[:length] for row, length in zip(sequences.response_ids.tolist(), lengths, strict=True)])
        return rollout

    @abstractmethod
    def logprobs(
        self,
        sequences: Sequences,
        *,
        role: str = POLICY,
        temperature: float = 1.0,
        entropy: bool = False,
        greedy: bool = False,
    ) -> TokenScores:
        """Log-probabilities of the response tokens, of logits / temperature. Differentiable for POLICY, frozen for REFERENCE.
        Call `backward` on one role's result before asking for another role with gradients."""

    def logprobs_and_values(
        self, sequences: Sequences, value: ScalarRole, *, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[TokenScores, Tensor]:
        """`logprobs` of the policy and the role's `values`; in one pass where the role reads the policy's own states."""
        scores = self.logprobs(sequences, temperature=temperature, entropy=entropy)
        return scores, value.values(sequences)

    def logprobs_and_reference_kl(
        self, sequences: Sequences, *, temperature: float = 1.0
    ) -> tuple[TokenScores, Tensor]:
        """`logprobs` of the policy and, of the same pass, KL(pi_ref || pi) over all tokens before each response token: [B, R] float32, in
        nats, 0 outside the mask, differentiable. For policies that know their whole distributions; an algorithm that asks says so
        (`reads_distributions`), and is refused where this is not overridden."""
        raise UserError("This model does not tell its probabilities of all tokens: choose another model or algorithm.")

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

    def as_transformers(self, role: str = POLICY) -> PreTrainedModel:
        """The role as a causal language model of transformers, for a library that trains with code of its own: an object of its own
        over the role's very weights. Whoever trains it trains the policy; a hook or another forward function on it is not the policy's.
        It computes the role's log-probabilities, suppressed tokens included."""
        raise UserError(
            "This model is not one of transformers: its plugin gives nothing that another library could train."
        )

    def fingerprint(self) -> str:
        """Names the weights that it started from, where its config does not (a folder's content may change): runs share
        stages under it."""
        return ""

    @abstractmethod
    def prompt_tokens(self, prompt: Prompt) -> int:
        """Length of the formatted prompt, for filtering before anything is trained."""

    @abstractmethod
    def save(self, directory: Path) -> Path:
        """Writes `directory`/model or `directory`/adapter, loadable by transformers or peft alone, and returns it."""

    @abstractmethod
    def load(self, path: Path) -> None:
        """Replaces the policy's weights with those of a folder that `save` returned."""

    def export(self, directory: Path, *, merged: bool, prompts: Sequence[Prompt]) -> Exported:
        """Writes into the empty folder `directory` what other programs load: one ordinary model, or with merged=False the
        adapter alone. Loads it by those programs' own means and compares it with itself on responses to `prompts`."""
        raise UserError("A model of this kind cannot be exported: its plugin does not say how.")


class RewardSource(ABC):
    """One raw scalar per response. Built with: policy, data, seeds."""

    known: ClassVar[str] = ""
    """package.module:function, which returns what its author knows of it, a sequence of `Known`, for the conformance kit."""

    @classmethod  # noqa: B027 (most serve any data)
    def check_data(cls, config: Any, data: DataSource) -> None:
        """Raises UserError where this data cannot serve it. Called before a model is loaded."""

    @classmethod
    def needs_rankings(cls, config: Any) -> bool:
        """Whether, with these settings, it is fitted to rankings before it can score. Only a FittableRewardSource may be."""
        return False

    @classmethod
    def asks_elsewhere(cls, config: Any) -> bool:
        """Whether, with these settings, `score` and `score_parts` do nothing but ask another program and wait: they read samples
        alone and touch no model, device or generator of this process. They may then be called from another thread than the one that
        trains."""
        return False

    @classmethod
    def asks_anybody(cls, config: Any) -> bool:
        """Whether, with these settings, any of a score is asked of another program, which may have to be paid: a page that is only looked
        at does without. As `asks_elsewhere`, unless a source does more than ask."""
        return cls.asks_elsewhere(config)

    def fingerprint(self) -> str:
        """Names what its scores depend on beside its config and its package (a folder's content, a function's source): runs
        share stages under it."""
        return ""

    def report(self) -> Mapping[str, float]:
        """Figures of what its scores took so far, as requests or their cost: kept in result.json."""
        return {}

    @abstractmethod
    def score(self, samples: Samples) -> Tensor:
        """[B] float32 on the device of `samples`; no gradient. Raises NonFiniteError rather than return NaN or infinity."""

    def score_parts(self, samples: Samples) -> RewardParts | None:
        """What `score` is the weighted sum of, for an algorithm that weighs parts by themselves, and for the log; None where it is one
        number. A run asks this first, and `score` only where there are no parts."""
        return None

    def compare(self, first: Samples, second: Samples) -> Tensor:
        """[B] float32: how far row i of `first` is preferred to row i of `second`, which answers the same prompt: 1, 0, or .5
        for a tie; NaN where it cannot tell. By their scores, unless the source can compare two responses directly."""
        return preferred(self.score(first), self.score(second))


def preferred(mine: Tensor, theirs: Tensor) -> Tensor:
    """By scores [B]: 1 where `mine` is higher, 0 where `theirs` is, .5 for a tie, NaN where one is not known."""
    gap = mine - theirs
    return (0.5 * (1.0 + gap.sign())).masked_fill(gap.isnan(), math.nan)


class FittableRewardSource(RewardSource):
    """A reward source that is fitted to rankings before it can score."""

    shares_batches: ClassVar[bool] = False
    """As in PolicyOptimizer; rankings are shared out by `functional.own_pieces`."""

    @classmethod
    def needs_rankings(cls, config: Any) -> bool:
        """As RewardSource.needs_rankings; False where, with these settings, it scores without having been fitted."""
        return True

    @abstractmethod
    def fit(
        self,
        rankings: Sequence[Ranking],
        held_out: Sequence[Ranking],
        baseline: Samples,
        *,
        annotator: Annotator,
        progress: Progress,
        state: Mapping[str, Any] | None = None,
    ) -> FitReport:
        """Trains on `rankings`, reports on `held_out`, and normalises itself on `baseline` (samples of the SFT model).
        Calls `progress` after each optimizer step; `state` is what an earlier, unfinished fit gave it last."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Writes all that it has learnt, its normalisation included, into the folder `path`."""

    @abstractmethod
    def load(self, path: Path) -> None:
        """Takes over what `save` wrote into that folder: it then gives the same scores, unfitted."""


class PolicyOptimizer(ABC, Generic[Batch]):
    """One algorithm: consumes batches of what its config declares and updates the policy.

    It loads no model, reads no file, writes no result. Built with: policy, updates (how many batches will come), seeds.
    """

    shares_batches: ClassVar[bool] = False
    """Whether several processes may share its batches: its loss is a sum over `functional.micro_batches` divided by the
    whole batch, its steps are ScheduledAdamW's, its figures go through `functional.across_processes`, and what it asks
    without gradients it asks of whole batches. A run on several processes is refused otherwise."""

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

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """Further options, each set beside `exact_settings`, under which it converges to another optimum."""
        return ()

    @classmethod
    def stated_loss(cls, config: Any, terms: Any) -> Tensor | None:
        """The loss of one optimizer step with these settings, a float64 scalar, written anew from the paper: it shares no code with
        `update`. `terms` are those of what the config consumes (see `alignbench.Terms`). The conformance kit holds the gradient of
        every step to its gradient. None where it is not stated."""
        return None

    @abstractmethod
    def update(self, batch: Batch) -> UpdateReport:
        """One update. Raises NonFiniteError before stepping if a reward, a loss or a gradient is not finite."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if never stopped (the policy's weights excluded)."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave, as if never stopped."""
