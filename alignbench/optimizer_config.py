"""The options that algorithms have in common, spelled the same everywhere: what their configs derive from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from alignbench.bounds import bounded, check_bounds
from alignbench.errors import UserError, unknown_name
from alignbench.records import POLICY, Consumes
from alignbench.records.source import Source
from alignbench.selection import Selected, select

PAIRS = ("all", "best_worst")
MISSING_EOS = ("subtract", "replace", "keep")
"""What becomes of the score of a response that was cut off: a penalty is taken off it, the penalty (below 0) takes its place, or it
is kept. `functional.shape_scores` does it."""
IMPORTANCE = ("token", "sequence", "none")


@dataclass(frozen=True)
class ImplicitReward:
    """What a trained policy takes a response to be worth, by itself: log pi / pi_ref of the whole response, in nats. `per_token`: of a token
    in the mean; `reference`: whether the reference's share is taken off, None: unless `per_token`. `beta` times the difference between two
    responses is the logit of the first being preferred; None where the algorithm does not say so."""

    per_token: bool = False
    beta: float | None = None
    reference: bool | None = None

    @property
    def uses_reference(self) -> bool:
        """Whether the reference's share is taken off."""
        return not self.per_token if self.reference is None else self.reference


@dataclass
class AlgorithmConfig:
    """What the core asks of every algorithm's config, trained or not."""

    consumes: ClassVar[Consumes]

    scalar_roles: ClassVar[tuple[str, ...]] = ()
    """Scalar roles that it trains beside the policy, as a value network: they count in estimates of memory. Of a reward that is fitted,
    those that it scores by, of which one is trained at a time; ("reward",) where it names none."""

    kl_price: ClassVar[str | None] = None
    """The option that is the price of one nat of KL, in units of the reward; empty where it has none. None: `kl_coef`, `beta` or `tau`, where
    it has one of them. Data that knows the price, as the exact world, gives its own in place of the option's default."""

    reads_distributions: ClassVar[bool] = False
    """Whether it asks the policy for `logprobs_and_reference_kl`. A model that cannot tell is refused before anything is trained."""

    inert: ClassVar[Mapping[str, str]] = {}
    """Options that change nothing in an update, each with the reason: the conformance kit holds all others to have an effect."""

    declines: ClassVar[Mapping[str, str]] = {}
    """Checks of the conformance kit that do not hold of it, by name, each with the reason, which is printed in the check's place.
    The config of any other kind of component may have the same attribute."""

    def __post_init__(self) -> None:
        """Refuses what cannot work before anything is built: here what lies outside the range of its option. A subclass with rules
        of its own calls this one first."""
        check_bounds(type(self), vars(self))

    @property
    def candidates(self) -> int:
        """Responses drawn for each response given, of which the one with the highest score is given (best-of-n)."""
        return 1

    @property
    def needs_scores(self) -> bool:
        """Whether a reward source must be there."""
        return self.consumes is Consumes.ROLLOUTS or self.candidates > 1

    def implicit_reward(self) -> ImplicitReward | None:
        """By which held-out preferences are judged; None where the policy is not trained."""
        return None


@dataclass
class OptimizerConfig(AlgorithmConfig):
    """Options of everything that is trained, spelled the same everywhere. An algorithm's config dataclass derives from
    it, or from RolloutConfig, PreferenceConfig or LabelConfig."""

    updates: int = bounded(100, least=0, most=1e7)
    """How many batches the algorithm is given. 0 with `passes` set: as many as the data needs."""
    passes: float = bounded(0.0, least=0, most=1e4)
    """Passes over the data, for algorithms that consume recorded data; used where `updates` is 0."""
    batch_size: int = bounded(64, least=1, most=1e6)
    """Responses (or demonstrations, or pairs) per update."""
    micro_batch_size: int = bounded(64, least=1, most=1e6)
    """Rows per forward and backward pass: memory only, the result is the same up to floating-point order."""
    optimizer: str = "adamw"
    """adamw, paged_adamw_8bit, muon, schedule_free, or one of a plugin's (`alignbench plugins` lists them)."""
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    """Options of that optimizer alone, by name, as {momentum: 0.9}."""
    learning_rate: float = bounded(1e-5, least=0, most=100)
    """Of the optimizer, at its highest."""
    lr_schedule: str = "linear"
    """constant, linear, cosine, wsd, or one of a plugin's: how the learning rate goes over all updates after the warm-up."""
    lr_schedule_options: dict[str, Any] = field(default_factory=dict)
    """Options of that schedule, by name, as {final: 0.1}."""
    warmup_updates: int = bounded(0, least=0, most=1e7)
    """Updates over which the learning rate rises linearly from 0."""
    weight_decay: float = bounded(0.0, least=0, most=100)
    """Share of the learning rate times a weight that each step takes off it, decoupled from the gradient; 0: none."""
    adam_eps: float = bounded(1e-5, least=1e-12, most=1e4)
    """Of AdamW, added to the root of the bias-corrected second moment: a weight whose gradients are of this size takes half a
    step. 1e-5 is the value of OpenAI's RLHF code, in place of torch's 1e-8; that code adds it before the correction, as
    TensorFlow does, which makes its first steps smaller still (arXiv 2403.17031)."""
    max_grad_norm: float = bounded(1.0, least=0)
    """Gradient norm limit per role; 0: none."""

    @property
    def rows_with_gradients(self) -> int:
        """Rows whose activations are held at once, for estimates of memory."""
        return min(self.micro_batch_size, self.batch_size)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.updates and not self.passes:
            raise UserError(f"updates={self.updates} and passes={self.passes}: one of them must be above 0.")
        self.uses()

    def uses(self) -> tuple[Selected, ...]:
        """As `uses` of any component's config: its optimizer and its schedule."""
        return (
            select("optimizer", self.optimizer, self.optimizer_options, where="optimizer_options"),
            select("schedule", self.lr_schedule, self.lr_schedule_options, where="lr_schedule_options"),
        )

    def ready(self) -> None:
        """As `ready` of any component's config (docs/plugins.md): tests may train at 0, a run would learn nothing."""
        if not self.learning_rate:
            raise UserError("learning_rate=0 trains nothing: give a number above 0.")

    def implicit_reward(self) -> ImplicitReward | None:
        """log pi / pi_ref of the whole response, unless the algorithm says otherwise."""
        return ImplicitReward()


@dataclass
class RolloutConfig(OptimizerConfig):
    """Options of every algorithm that learns from scored samples."""

    consumes: ClassVar[Consumes] = Consumes.ROLLOUTS
    samples_from: ClassVar[str] = POLICY
    """Who is sampled: POLICY as it stands, or the frozen REFERENCE. A config may make it a field or a property. Where more than one draws,
    or a mixture, a config says so by `sources`."""

    samples_per_prompt: int = bounded(1, least=1, most=1e4)
    """Responses sampled for each prompt of a rollout, neighbours in it; batch_size must be a multiple of it."""
    temperature: float = bounded(1.0, least=1e-3, most=100)
    """Of sampling, and of every log-probability that is compared with it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.samples_per_prompt:
            raise UserError(
                f"batch_size={self.batch_size} must be a multiple of samples_per_prompt={self.samples_per_prompt}."
            )
        if self.samples_per_prompt % (drawn_by := len(self.sources)):
            raise UserError(
                f"samples_per_prompt={self.samples_per_prompt} must be a multiple of {drawn_by}: as many draw in turn."
            )

    @property
    def sources(self) -> tuple[Source, ...]:
        """Who draws the responses to a prompt, in turn: the first from the first of them, the next from the next, and round again."""
        return (Source(self.samples_from),)

    @property
    def asks_annotator(self) -> bool:
        """Whether the annotator ranks its samples and no reward source is there: their scores are then minus the ranks, 0 the best."""
        return False

    @property
    def needs_scores(self) -> bool:
        return not self.asks_annotator or self.candidates > 1


@dataclass
class CorrectedConfig(RolloutConfig):
    """Options of algorithms that weigh samples which are not quite the policy's own (`Rollout.off_policy`), by
    `functional.correction`. Without effect where the policy's own loop samples, unless it samples ahead (`overlap`)."""

    inert: ClassVar[Mapping[str, str]] = {
        "sampler_gap_limit": "it ends a run, or does nothing",
        "overlap": "it decides when a batch is sampled, not what is learnt from it",
    }

    importance: str = "token"
    """Truncated importance sampling where an engine samples: weights pi / pi_sampler of each token, of the whole sequence, or none."""
    importance_clip: float = bounded(2.0, above=0, most=1e6)
    """The largest of those weights."""
    sampler_gap_limit: float = bounded(0.3, least=0, most=1e6)
    """An engine whose log-probabilities are further from the policy's ends the run, nats a token, the mean |difference| of an update;
    0: none does."""
    overlap: int = bounded(0, least=0, most=1)
    """1: the next batch is sampled before an update, and scored while that goes on, by a reward that asks elsewhere (a judge at an
    endpoint). Its samples are then of the weights of one update earlier, and are weighed by `importance`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.importance not in IMPORTANCE:
            raise unknown_name("importance", self.importance, IMPORTANCE)


@dataclass
class OfflineConfig(OptimizerConfig):
    """Options of every algorithm that learns from responses that somebody has ranked or labelled."""

    uses_reference: ClassVar[bool] = True
    """Whether batches bring the reference's log-probabilities, computed once for all pairs."""

    pairs: str = "all"
    """The pairs of a ranking: all of them, or best_worst (the first against the last)."""

    @property
    def rows_with_gradients(self) -> int:
        """Both responses of each pair."""
        return 2 * super().rows_with_gradients

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs not in PAIRS:
            raise unknown_name("pairs", self.pairs, PAIRS)

    def implicit_reward(self) -> ImplicitReward | None:
        """The log-ratio, or the mean log-probability of a token where no reference is used."""
        return ImplicitReward(per_token=not self.uses_reference)


@dataclass
class PreferenceConfig(OfflineConfig):
    """Options of every algorithm that learns from pairs of ranked responses."""

    consumes: ClassVar[Consumes] = Consumes.PREFERENCES

    @property
    def needs_probabilities(self) -> str:
        """The setting by which it learns from the annotator's own P(chosen preferred), refused where the annotator knows
        none; empty: it does not."""
        return ""


@dataclass
class LabelConfig(OfflineConfig):
    """Options of every algorithm that learns from single responses, each called good or bad: the labels that the data brings, or
    pairs taken apart (the chosen response is good, the rejected one bad)."""

    consumes: ClassVar[Consumes] = Consumes.LABELS

    batch_size: int = 64
    """Pairs per update; of labels without pairs twice as many responses."""

    @property
    def responses(self) -> int:
        """Of an update."""
        return 2 * self.batch_size
