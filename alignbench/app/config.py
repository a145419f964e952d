"""The typed configuration of one run: what Hydra's YAML becomes before anything is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alignbench.bounds import bounded
from alignbench.errors import UserError, unknown_name
from alignbench.plugins import Kind
from alignbench.records import Consumes
from alignbench.records.stages import StagePlace
from alignbench.results.compared.primary import PRIMARY
from alignbench.selection import Selected

COMPONENT = "component"  # the key that says which component a config belongs to, whatever preset it came from
# What a component's config is kept under; the same names are the config groups. Three of them hold an algorithm.
SLOTS = {
    "algo": Kind.ALGORITHM,
    "sft": Kind.ALGORITHM,
    "pretrain": Kind.ALGORITHM,
    "model": Kind.MODEL,
    "data": Kind.DATA,
    "reward": Kind.REWARD,
    "annotator": Kind.ANNOTATOR,
    "tracker": Kind.TRACKER,
}
JUDGE = "judge"  # a reward source too, but one that a run can do without


@dataclass
class RankingsSettings:
    """How rankings are collected from the SFT model, where the annotator ranks sampled responses."""

    prompts: int = bounded(2000, least=2, most=1e8)
    """Training prompts whose responses are ranked."""
    responses: int = bounded(4, least=2, most=1e4)
    """K: responses sampled and ranked per prompt."""
    held_out: float = bounded(0.1, least=0, below=1)
    """Share of the prompts whose rankings are held out to judge the reward model; at least one."""
    temperature: float = bounded(1.0, least=1e-3, most=100)
    """Of sampling the responses."""


@dataclass
class PointSettings:
    """The cheap part of the evaluation that the policy is measured with along its training. No questionnaires are asked."""

    questions: int = bounded(50, least=0)
    """Of the evaluation questions, the first so many; 0: all of them."""
    samples: int = bounded(2, least=1, most=1e4)
    """Responses sampled per prompt; at most eval.samples."""
    families: list[str] = field(default_factory=list)
    """Some of eval.families; empty: all of them."""
    judge: bool = False
    """Whether reward@judge, where one is chosen, judges there too. What asks a server is paid for at every point."""


@dataclass
class EvalSettings:
    """What a checkpoint's responses are sampled and scored with."""

    families: list[str] = field(default_factory=list)
    """Names of the evaluations to run."""
    questions: int = bounded(0, least=0)
    """Evaluation questions (prompts that share a cluster count once); 0: all that the data source has."""
    samples: int = bounded(4, least=1, most=1e4)
    """Responses sampled per prompt."""
    temperature: float = bounded(1.0, least=1e-3, most=100)
    """Of sampling the responses."""
    every: int = bounded(0, least=0)
    """Updates of the algorithm from one evaluation of the policy as it stands to the next, before the first update and after the
    last included; 0: none. It changes nothing of what the run measures at its end."""
    points: PointSettings = field(default_factory=PointSettings)
    """What is measured then."""
    frontier_samples: int | None = bounded(None, least=0, most=1e6)
    """Responses of the SFT model, for each of `frontier_prompts`, from which the best reward that any policy could reach at each KL is
    estimated; 0: none. null: 256 of a model built from scratch, none of a pretrained one, whose responses take long."""
    frontier_prompts: int = bounded(40, least=2)
    """Evaluation prompts on which it is."""
    path: str = ""
    """A folder of evaluation data for the evaluations that read some; empty: from the hub, or what they bring along."""
    tasks: list[str] = field(default_factory=list)
    """Further tasks of lm-eval, by name."""
    primary: list[str] = field(default_factory=lambda: list(PRIMARY))
    """The metrics that the run is about, named before it is made: `compare` tests them alone. Of names joined by | the first that is
    measured."""
    include_path: Any = field(default_factory=list)
    """A folder of lm-eval's YAML tasks of one's own, or a list of folders: eval.tasks may name what is in them."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of each evaluation: eval.options.<family>.<field>."""

    def __post_init__(self) -> None:
        if len(set(self.families)) < len(self.families):
            raise UserError(f"eval.families names an evaluation twice: {', '.join(self.families)}.")
        points = self.points
        # The SFT model's first responses to the same prompts are the baseline.
        if self.every and points.samples > self.samples:
            raise UserError(f"eval.points.samples={points.samples} must be 1 to eval.samples={self.samples}.")
        if odd := [name for name in points.families if name not in self.families]:
            raise unknown_name("evaluation", odd[0], self.families, where="eval.points.families")


@dataclass
class BudgetSettings:
    """What an algorithm may cost, from the SFT model to its last update; 0: no bound. It ends with the update that reaches the
    first bound, so that different algorithms can be compared at equal cost. SFT, rankings and the reward model are shared and stand
    outside of it."""

    samples: int = bounded(0, least=0, most=1e15)
    """Responses that it is given, whether or not it learns from each of them: all that are sampled, each side of a pair. The
    schedule of the learning rate ends with it."""
    tokens: int = bounded(0, least=0, most=1e15)
    """Tokens of those responses."""
    seconds: float = bounded(0.0, least=0)
    """Wall time of its training: sampling and scoring, and the reference's pass over recorded responses, whichever run made it."""


RESUME = ("finished", "unfinished", "never")


@dataclass
class TuneSettings:
    """What a sweep tunes for (docs/sweeps.md)."""

    metric: str = ""
    """A metric of the finished run, as `helpfulness/gold_reward`: what each job of the sweep returns to the sweeper."""
    kl_limit: float = bounded(0.0, least=0)
    """Nats per response: a trial that ends further from the SFT model is not chosen, however good; 0: no limit."""


@dataclass
class Settings:
    """The plain keys of the configuration. Component groups stand beside them."""

    seed: int = bounded(0, least=0, most=1e18)
    """Of every random choice of the run."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: a GPU, where there is one."""
    results_dir: str = "results/runs"
    """The folder that run directories go to."""
    cache: bool = True
    """Whether stages are kept for other runs."""
    cache_dir: str = ""
    """Where; empty: $ALIGNBENCH_CACHE/stages, else ~/.cache/alignbench/stages."""
    resume: str = "finished"
    """finished: the same command again goes on with its unfinished run and leaves a finished one of the same settings and code as it is,
    so that a sweep is picked up; unfinished: it trains a finished one anew; never: it always starts a new run."""
    algo: Any = None
    sft: Any = None
    pretrain: Any = None
    model: Any = None
    data: Any = None
    reward: Any = None
    judge: Any = None
    annotator: Any = None
    tracker: Any = None
    stages: list[str] = field(default_factory=list)
    """Stages of plugins between the run's own, in this order; `alignbench plugins` lists them, and each says where it stands."""
    stage_options: dict[str, Any] = field(default_factory=dict)
    """Options of each of them: stage_options.<stage>.<field>."""
    rankings: RankingsSettings = field(default_factory=RankingsSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)

    def __post_init__(self) -> None:
        if not self.results_dir.strip():
            raise UserError("results_dir is empty: name the folder that runs go to, as results_dir=results/runs.")
        if self.resume not in RESUME:
            raise unknown_name("resume", self.resume, RESUME)


@dataclass(frozen=True)
class RunConfig:
    """All of one run. `yaml` is the resolved configuration as written to config.yaml.

    `hash` identifies it without its seed, its device and its results folder; the other three identify parts of it: what
    the SFT model depends on, what the annotator and the collection of rankings do, what the reward source does."""

    seed: int
    device: str
    results_dir: str
    cache: bool
    cache_dir: str
    resume: str
    algo: Selected
    sft: Selected
    pretrain: Selected
    model: Selected
    data: Selected
    reward: Selected
    judge: Selected | None
    annotator: Selected
    tracker: Selected
    rankings: RankingsSettings
    eval: EvalSettings
    budget: BudgetSettings
    evaluations: tuple[Selected, ...]
    stages: tuple[Selected, ...]
    yaml: str
    hash: str
    sft_hash: str
    annotator_hash: str
    reward_hash: str

    @property
    def imitates(self) -> bool:
        """Whether the algorithm itself is supervised fine-tuning: there is no other stage after it."""
        return bool(self.algo.config.consumes is Consumes.DEMONSTRATIONS)

    @property
    def start(self) -> Selected:
        """What fine-tunes the model that the algorithm starts from, or is the algorithm."""
        return self.algo if self.imitates else self.sft

    def stages_at(self, *places: StagePlace) -> tuple[Selected, ...]:
        """The stages of one's own that stand there."""
        return tuple(chosen for chosen in self.stages if chosen.component.config.place in places)  # type: ignore[attr-defined]
