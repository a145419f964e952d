"""Configs of the reward sources; the only place where their defaults stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from alignbench import OptimizerConfig, StagePlace, UserError, bounded, check_there, unknown_name

LOSS_NAMES = ("bradley_terry", "plackett_luce")
ENSEMBLES = ("mean", "worst", "uncertainty", "weights")
PROMPT_FORMS = ("text", "messages", "record")
INPUT_FORMATS = ("chat", "pair")
DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
COMPARISONS = ("pairwise", "scalar")


@dataclass
class LearnedConfig(OptimizerConfig):
    """A reward model on the policy's base, fitted to rankings and standardised on samples of the SFT model."""

    updates: int = 0
    """As in OptimizerConfig; a batch is `batch_size` rankings."""
    passes: float = 1.0
    """As in OptimizerConfig."""
    batch_size: int = 16
    """Rankings (prompts with their K responses) per optimizer step."""
    micro_batch_size: int = 8
    """Rankings per forward pass: memory only."""
    learning_rate: float = 1e-4
    """As in OptimizerConfig."""
    loss: str = "bradley_terry"
    """bradley_terry (all pairs of a ranking, averaged within the prompt; arXiv 2203.02155, equation 1) or plackett_luce."""
    margin: float = bounded(0.0, least=0, most=1e4)
    """Of Bradley-Terry: how far the scores of a pair are to be apart, log-odds per unit by which the data's ratings of the two differ
    (arXiv 2307.09288, equation 2). 0: no margin; with one, data without ratings is refused."""
    members: int = bounded(1, least=1, most=64)
    """Reward models, each fitted to the same rankings in an order of its own; 1: no ensemble."""
    ensemble: str = "mean"
    """What several members score: mean, worst (the lowest of them), uncertainty (their mean less `uncertainty` times their variance; both
    arXiv 2310.02743) or weights (one model of the mean of their weights, WARM, arXiv 2401.12187: no more memory than one)."""
    uncertainty: float = bounded(0.1, least=0, most=1e4)
    """The price of the members' variance where ensemble=uncertainty, in scores per squared score, of deviation 1 each with `normalise`."""
    normalise: bool = True
    """Shift and scale the scores to mean 0 and standard deviation 1 on samples of the SFT model."""

    @property
    def averages_weights(self) -> bool:
        """Whether the members become one model."""
        return self.ensemble == "weights" and self.members > 1

    @property
    def scalar_roles(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the members that score; a value network starts from the first."""
        return ("reward", *(() if self.averages_weights else (f"reward_{n}" for n in range(2, self.members + 1))))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSS_NAMES:
            raise unknown_name("reward.loss", self.loss, LOSS_NAMES)
        if self.ensemble not in ENSEMBLES:
            raise unknown_name("reward.ensemble", self.ensemble, ENSEMBLES)
        if self.margin and self.loss != "bradley_terry":
            raise UserError(
                f"reward.margin={self.margin:g} is one of pairs: choose reward.loss=bradley_terry, or reward.margin=0."
            )


@dataclass
class GoldConfig:
    """The data's own gold reward: what an algorithm does where the reward cannot be hacked."""


@dataclass
class LengthConfig:
    """The number of tokens and nothing else: a control for what length alone explains (arXiv 2310.03716)."""

    scale: float = bounded(0.1, least=-1e4, most=1e4, nonzero=True)
    """Reward per response token, EOS included; below 0 it rewards brevity."""


@dataclass
class FunctionConfig:
    """A Python function of yours: one score for a prompt and a response, or a list for a batch of them."""

    ready: ClassVar[str] = "alignbench_rewards.function:ready"

    target: str = ""
    """package.module:function, importable where the command runs (for a file of your own, set PYTHONPATH to its folder)."""
    batch: bool = False
    """False: `function(prompt, response) -> float`. True: `function(prompts, responses) -> list of floats`."""
    prompt: str = "text"
    """What the function is given of a prompt: text (its last message), messages (all, as a list of role and content) or
    record (the whole alignbench.Prompt, with its `info`)."""

    def __post_init__(self) -> None:
        if self.prompt not in PROMPT_FORMS:
            raise unknown_name("reward.prompt", self.prompt, PROMPT_FORMS)


@dataclass
class HFConfig:
    """A reward model of its own: a sequence classifier with its own tokenizer and template, from the hub or a folder."""

    model: str = ""
    """A folder with safetensors weights and a tokenizer, or a hub id (owner/name)."""
    revision: str = ""
    """Branch, tag or commit on the hub; empty: main."""
    label: int | None = bounded(None, least=0)
    """Which output is the reward, from 0; may be left out where the model has one alone."""
    format: str = "chat"
    """chat: the conversation in the model's chat template. pair: the last message and the response as a pair of texts."""
    template: str = ""
    """A chat template (Jinja) in place of the tokenizer's own."""
    max_length: int = bounded(2048, least=1)
    """Most tokens of prompt and response together, and never more than the model has positions for; longer texts lose their
    beginning."""
    batch_size: int = bounded(8, least=1, most=1e6)
    """Responses per forward pass: memory and speed only."""
    dtype: str = "auto"
    """Of the weights: auto (as they are stored), float32, bfloat16 or float16."""
    device: str = ""
    """Where the reward model lives, as cpu or cuda:1; empty: where the policy does."""

    def __post_init__(self) -> None:
        if self.format not in INPUT_FORMATS:
            raise unknown_name("reward.format", self.format, INPUT_FORMATS)
        if self.dtype not in DTYPES:
            raise unknown_name("reward.dtype", self.dtype, DTYPES)
        if self.device and not _DEVICE.fullmatch(self.device):
            raise UserError(f"reward.device={self.device} is not a device: write cpu, cuda or cuda:<number>.")

    def ready(self) -> None:
        """As `ready` of any component's config."""
        if not self.model:
            raise UserError("reward=hf needs reward.model=<a folder or a hub id>.")
        check_there(self.model, "reward.model", hub=True)
        if self.template:
            import jinja2

            try:
                jinja2.Environment().parse(self.template)
            except jinja2.TemplateSyntaxError as error:
                raise UserError(f"reward.template is no template: {' '.join(str(error).split())}.") from None


RUBRIC = (
    "Judge how good the answer is for the person who asked: whether it is helpful, true and harmless, does what was asked for, "
    "and says no more than it should. Length is no merit, and agreeing with the person is none."
)


@dataclass
class JudgeConfig:
    """A language model as judge, behind an OpenAI-compatible chat-completions endpoint."""

    ready: ClassVar[str] = "alignbench_rewards.judge:ready"

    slot: ClassVar[str] = "reward"
    """Where a user finds these options, for errors."""

    inert: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("timeout", "backoff", "max_backoff"), "it matters where a server is slow or fails, and changes no answer"
    )

    url: str = "https://api.openai.com/v1"
    """Where the endpoint is, without /chat/completions."""
    model: str = ""
    """The judge's name at the endpoint."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; empty: none is sent. The key itself is written nowhere."""
    comparison: str = "pairwise"
    """How two responses are compared: pairwise (shown together, in both orders) or scalar (rated one by one). The score of one
    response is always a rating from 1 to 10."""
    rubric: str = RUBRIC
    """What a good answer is: words, or a text file with them, as a constitution (a name that ends in .txt or .md)."""
    rubrics: dict[str, str] = field(default_factory=dict)
    """Several rubrics by name, in place of that one: each is asked for by itself, and what is said by it is a part of the score, which is
    their weighted mean."""
    weights: dict[str, float] = bounded({}, above=0, most=1e4)
    """The weight of each of those rubrics by its name, above 0; 1 where it is left out."""
    max_tokens: int = bounded(512, least=1)
    """Most tokens of a judge's answer."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of each request; null takes one of ours away (max_tokens or temperature, where a model refuses it)."""
    timeout: float = bounded(60.0, above=0, most=1e6)
    """Seconds to wait for one answer."""
    retries: int = bounded(5, least=0, most=1000)
    """Further attempts after an error of the server or the network, before the run stops."""
    reasks: int = bounded(2, least=0, most=1000)
    """Further questions after an answer without a verdict."""
    backoff: float = bounded(1.0, least=0, most=1e5)
    """Seconds before the first retry; doubled each time, with jitter of up to a half."""
    max_backoff: float = bounded(60.0, least=0, most=1e5)
    """Most seconds before a retry, also where the server asks for more (Retry-After)."""
    concurrency: int = bounded(4, least=1, most=1000)
    """Questions under way at once."""
    cache: bool = True
    """Whether answers are kept on disk and not asked for again."""
    cache_dir: str = ""
    """Where; empty: $ALIGNBENCH_CACHE/judge, else ~/.cache/alignbench/judge."""
    price_in: float = bounded(0.0, least=0)
    """US dollars per million tokens of questions, for the cost that is reported."""
    price_out: float = bounded(0.0, least=0)
    """US dollars per million tokens of answers."""

    def __post_init__(self) -> None:
        if self.comparison not in COMPARISONS:
            raise unknown_name(f"{self.slot}.comparison", self.comparison, COMPARISONS)
        if odd := [name for name in self.weights if name not in self.rubrics]:
            raise unknown_name("rubric", odd[0], self.rubrics, where=f"{self.slot}.weights")
        if self.key_variable and not re.fullmatch(r"[A-Za-z_]\w*", self.key_variable):
            raise UserError(
                f"{self.slot}.key_variable={self.key_variable!r} is no name of an environment variable, as OPENAI_API_KEY."
            )
        parts = urlsplit(self.url)
        if parts.username or parts.password or parts.query:  # not repeated here: it may hold a key
            raise UserError(
                f"{self.slot}.url holds a password or a query: put the key into an environment variable (key_variable)."
            )
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(f"{self.slot}.url={self.url!r} is no address: write it as https://host/v1.")


@dataclass
class JudgeAnnotatorConfig(JudgeConfig):
    """A language model ranks (AI feedback, arXiv 2212.08073): each pair in both orders, by a rubric or constitution."""

    slot: ClassVar[str] = "annotator"

    comparison: str = "pairwise"
    """How responses are ranked: pairwise (each pair shown in both orders, a disagreement is a tie, ranked by the pairs won) or scalar
    (each rated from 1 to 10 by itself: fewer questions, more ties)."""
    concurrency: int = 8
    """As in JudgeConfig."""


@dataclass
class MixConfig:
    """A weighted sum of other reward sources, each standardised and clipped."""

    ready: ClassVar[str] = "alignbench_rewards.mix:ready"

    parts: dict[str, float] = bounded({}, least=-1e4, most=1e4, nonzero=True)
    """The weight of each part, by the name of its reward source: {learned: 1.0, length: -0.2}."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of each part: reward.options.<part>.<field>. `component` names the reward source where the part has another
    name, so that one source can take part twice."""
    standardise: bool = True
    """Whether each part is brought to mean 0 and standard deviation 1 on responses of the SFT model before it is weighted."""
    baseline: int = bounded(256, least=2, most=1e6)
    """Responses of the SFT model that the parts are standardised on."""
    clip: float = bounded(0.0, least=0)
    """Each part is cut to between -clip and clip before it is weighted; 0: it is not."""

    def __post_init__(self) -> None:
        if odd := [name for name in self.options if name not in self.parts]:
            raise unknown_name("part", odd[0], self.parts, where="reward.options")


@dataclass
class HeldOutConfig:
    """How often the reward source prefers what was ranked higher, on held-out rankings; after the reward."""

    place: ClassVar[StagePlace] = StagePlace.AFTER_REWARD
    needs: ClassVar[tuple[str, ...]] = ("held_out", "score")

    batch_size: int = bounded(64, least=1, most=1e6)
    """Responses that are scored at once: memory only."""
