"""The data that flows through a run: small frozen dataclasses, one way, never dicts of tensors.

Shapes: B rows (one response each), P prompt tokens, R response tokens. Prompts are left-padded and responses
right-padded, so that the last prompt token and the first response token are neighbours in every row.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignbench.records.scores import RewardParts as RewardParts
from alignbench.records.scores import ScoredRollout as ScoredRollout

if TYPE_CHECKING:
    from torch import Tensor


POLICY = "policy"
"""The role of `Policy` that is trained."""
REFERENCE = "reference"
"""The role of `Policy` that is frozen: what it was at `freeze_reference`, as a rule the SFT model."""


class Consumes(enum.Enum):
    """What an optimizer is fed."""

    DEMONSTRATIONS = "demonstrations"
    ROLLOUTS = "rollouts"
    PREFERENCES = "preferences"
    LABELS = "labels"
    NOTHING = "nothing"  # it trains nothing: a rule for how a model is sampled


class Split(enum.Enum):
    """Which prompts of a data source: those that a run trains on, or those that are held out for its evaluation."""

    TRAIN = "train"
    EVALUATION = "evaluation"


class Opinion(enum.Enum):
    """What the user says they believe, where a prompt has a right answer: the axis of sycophancy."""

    NONE = "none"
    RIGHT = "right"
    WRONG = "wrong"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Constraint:
    """What a response must satisfy: the name of a checker and its arguments (IFEval's instruction ids, arXiv 2311.07911)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """What makes a response to a prompt verifiable, as a data set gives it. Whatever is empty was not given.

    `answer`: the right answer, or a pattern or a schema that a right one fits; a verifier says how it reads it. `choices`: what
    a multiple choice offers, in order: A, B, C, ... `tests`: Python source that fails where a function is wrong."""

    answer: str = ""
    choices: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    tests: str = ""


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends where the policy is to answer.

    `cluster` groups prompts that are not independent (the same question under several opinions); statistics resample
    clusters. `info` is what the data source needs to judge a response, `reference` what anybody can verify one by; a policy
    never sees them. `subset`: the part of a data set that it is from (a topic, a difficulty), by which figures can be shown.
    """

    id: str
    messages: tuple[Message, ...]
    opinion: Opinion | None = None
    cluster: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    reference: Reference | None = None
    subset: str = ""

    @property
    def text(self) -> str:
        """The last message, for people to read."""
        return self.messages[-1].content if self.messages else ""


@dataclass(frozen=True)
class Demonstration:
    """A response that a policy should imitate."""

    prompt: Prompt
    response: str


@dataclass(frozen=True)
class Ranking:
    """K responses to one prompt, ranked: `ranks[k]` is the rank of `responses[k]`, 0 is best, equal ranks are ties.

    `annotator`: who ranked them, where several do; each one's ranking of a prompt is a ranking of its own. `scores`: the ratings
    behind the ranks, higher is better, in the data set's own unit; their differences are margins. `styles`: how elaborate each
    response is made, 0 is plainest, where a data set varies that on purpose (RM-Bench, arXiv 2410.16184)."""

    prompt: Prompt
    responses: tuple[str, ...]
    ranks: tuple[int, ...]
    finished: tuple[bool, ...] = ()  # whether response k ended by itself; empty: all did
    annotator: str = ""
    scores: tuple[float, ...] = ()
    styles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.responses) != len(self.ranks):
            raise ValueError(f"ranking of {self.prompt.id!r}: {len(self.responses)} responses, {len(self.ranks)} ranks")


@dataclass(frozen=True)
class Labelled:
    """One response that was called good or bad, without another to compare it with (arXiv 2402.01306)."""

    prompt: Prompt
    response: str
    good: bool
    finished: bool = True


@dataclass(frozen=True)
class Description:
    """How a data source understood its files, for people to read. `forms`: rows by the form that they were read as. `columns`: what
    each column was read as, by its role. `set_aside`: the first row that each reason set aside, and what is wrong with it. `notes`: lines
    on what else was given or is there and was not read."""

    files: tuple[str, ...] = ()
    forms: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    set_aside: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreferencePair:
    """`chosen` is preferred to `rejected`; `probability` is the annotator's own P(chosen preferred), where it is known."""

    prompt: Prompt
    chosen: str
    rejected: str
    probability: float | None = None
    finished: tuple[bool, bool] = (True, True)  # whether chosen and rejected ended by themselves


@dataclass(frozen=True)
class UtilityTerm:
    """One term of an annotator's utility, `weight` times a feature of the response. `setting`: the field of its config that is the
    weight; `label` names the feature in a word or two; a weight is moved from `low` to `high`. `against`: the setting of the term that
    this one is weighed against, so that people move one slider from that to this and the sum of the two stays."""

    setting: str
    label: str
    weight: float
    low: float
    high: float
    against: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a data source that knows the truth says of one response. None: does not apply."""

    gold_reward: float
    correct: bool | None = None
    agrees: bool | None = None  # repeats the opinion the user stated


@dataclass(frozen=True)
class Sequences:
    """Tokens of B prompts and responses. All tensors share one device.

    prompt_ids, prompt_mask: [B, P], left-padded. response_ids, response_mask: [B, R], right-padded; the mask covers
    the end-of-sequence token where there is one, and nothing after it.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor

    def __len__(self) -> int:
        return int(self.response_ids.shape[0])

    def select(self, rows: Tensor | slice) -> Sequences:
        """The given rows, trimmed to their own longest prompt and response (at least one column each)."""
        prompt_mask, response_mask = self.prompt_mask[rows], self.response_mask[rows]
        keep_prompt = max(int(prompt_mask.sum(1).max()), 1)
        keep_response = max(int(response_mask.sum(1).max()), 1)
        return Sequences(
            self.prompt_ids[rows][:, -keep_prompt:],
            prompt_mask[:, -keep_prompt:],
            self.response_ids[rows][:, :keep_response],
            response_mask[:, :keep_response],
        )


@dataclass(frozen=True)
class Samples:
    """B responses with everything a reward source may look at. `finished` [B]: the response ended by itself (EOS)."""

    prompts: tuple[Prompt, ...]
    texts: tuple[str, ...]
    sequences: Sequences
    finished: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Tensor) -> Samples:
        """The given rows, trimmed as Sequences.select does."""
        chosen = rows.tolist()
        prompts, texts = (tuple(part[i] for i in chosen) for part in (self.prompts, self.texts))
        return Samples(prompts, texts, self.sequences.select(rows), self.finished[rows])


@dataclass(frozen=True)
class Rollout:
    """Responses sampled from the policy. `logprobs` [B, R]: of each token as it was sampled, 0 where masked.

    `off_policy`: they are not exactly the policy's own, because an engine of its own arithmetic sampled them, or the weights of an
    earlier update did; `functional.correction` says what to do about it."""

    samples: Samples
    logprobs: Tensor
    temperature: float
    off_policy: bool = False


@dataclass(frozen=True)
class TokenScores:
    """Log-probabilities of response tokens in nats, [B, R] float32, 0 where masked; `entropy` alike where asked for, and
    `greedy` [B, R] bool: whether no token is more likely, False where masked."""

    logprobs: Tensor
    entropy: Tensor | None = None
    greedy: Tensor | None = None


@dataclass(frozen=True)
class Likelihood:
    """Of one given response: the sum of its tokens' log-probabilities in nats, and whether greedy decoding gives it."""

    logprob: float
    greedy: bool


@dataclass(frozen=True)
class Sampling:
    """How to sample. Training uses top_p = 1 and top_k = 0: otherwise log-probabilities are not those of the sampler.

    top_k = 1 is greedy decoding. `max_new_tokens`: None is the policy's limit of training; it may go beyond that, as far as
    the model's window. `reference_share`: as of a `Source`; other than 0 where the policy `mixes_reference` alone."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int | None = None
    reference_share: float = 0.0


@dataclass(frozen=True)
class UpdateReport:
    """What one update did. `metrics` become a line of train.jsonl; `stop` ends the stage early, saying why."""

    metrics: Mapping[str, float]
    optimizer_steps: int
    stop: str | None = None


@dataclass(frozen=True)
class FitReport:
    """What fitting a reward source gave: figures for result.json and one line for the terminal."""

    metrics: Mapping[str, float]
    summary: str = ""


@dataclass(frozen=True)
class Generation:
    """One evaluated response, with what was measured of it. Log-probabilities are sums over its tokens, in nats, at the
    temperature that it was sampled at (1 where it was given); NaN, like the entropy, where only the text was asked for."""

    prompt: Prompt
    index: int
    response: str
    tokens: int
    finished: bool
    logprob: float
    ref_logprob: float
    entropy: float  # mean over tokens of the policy's entropy, nats per token
    proxy_reward: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Exported:
    """What `Policy.export` found when it loaded what it had written: how far the log-probabilities of `tokens` response tokens
    are from the policy's own, in nats, on average and at most. A `mean` over `tolerance` is a fault: the largest grows with
    the number of tokens where weights are rounded. `notes` are lines for the user."""

    mean: float
    largest: float
    tolerance: float
    tokens: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExampleScore:
    """One metric of one evaluation example: the unit of every mean, standard error and paired test. NaN: it was asked for,
    and whoever should have answered (a judge) did not."""

    metric: str
    example: str
    value: float
    cluster: str = ""


class Direction(enum.Enum):
    """Which way of a metric is better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


@dataclass(frozen=True)
class MetricSpec:
    """What a metric is: its `family/name`, which way is better, its unit in a few words.

    `share`: each score is a yes (1) or no (0), or the mean of several; its interval is that of a share, which an average is not."""

    name: str
    direction: Direction
    unit: str = ""
    share: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric's value over its examples; `stderr` is clustered by `ExampleScore.cluster`, NaN for a single cluster.

    `missing` examples were asked for and not answered: the rest, which is what `value` and `n` are of, may not be like them.
    `low` to `high` is the 95% interval over the `clusters`, NaN where there is none; `share` as in MetricSpec."""

    value: float
    stderr: float
    n: int
    direction: Direction
    missing: int = 0
    clusters: int = 0
    low: float = math.nan
    high: float = math.nan
    share: bool = False


@dataclass(frozen=True)
class ExactProblem:
    """A world small enough to write down: X prompts and all of their Y completions. Tensors are [X, Y] float64.

    `completions` are token ids, with EOS where a completion ends by itself; no two are alike. Every pair of responses is
    preferred by Bradley-Terry on the rewards, P(y over y') = sigmoid(r(y) - r(y')), and rankings are drawn from the
    reference."""

    completions: tuple[tuple[int, ...], ...]
    reference: Tensor
    rewards: Tensor


def expand(prompts: Sequence[Prompt], n: int) -> tuple[Prompt, ...]:
    """Each prompt n times, neighbours kept together: row i * n + j is response j to prompt i."""
    return tuple(prompt for prompt in prompts for _ in range(n))
