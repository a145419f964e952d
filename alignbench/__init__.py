"""alignbench: a plugin-based benchmark harness for alignment algorithms.

This is the public door: everything that a plugin may import stands here, in `alignbench.functional` and in
`alignbench.pretrained`.
Importing it does not import torch.
"""

from functools import partial
from typing import TYPE_CHECKING

from alignbench.bounds import bounded
from alignbench.contracts import (
    Annotator,
    DataSource,
    Evaluation,
    FittableRewardSource,
    Policy,
    PolicyOptimizer,
    Progress,
    RewardSource,
    ScalarRole,
    Tracker,
    Watch,
)
from alignbench.contracts.format import Format
from alignbench.contracts.known import Case, Known
from alignbench.contracts.report import ReportRow, Section
from alignbench.contracts.sampler import Sampler
from alignbench.contracts.stage import PolicyReader, Stage, StageView
from alignbench.contracts.subject import Judge, MeasuredRanking, Subject
from alignbench.deprecation import Renamed, moved
from alignbench.errors import AlignbenchError, NonFiniteError, UserError, unknown_name
from alignbench.hookspecs import Register, RegisterFunction, RunFinished, RunStarted, RunStep, hookimpl
from alignbench.optimizer_config import (
    MISSING_EOS,
    AlgorithmConfig,
    CorrectedConfig,
    ImplicitReward,
    LabelConfig,
    OptimizerConfig,
    PreferenceConfig,
    RolloutConfig,
)
from alignbench.paths import check_may_be_folder, check_there, user_path
from alignbench.records import (
    POLICY,
    REFERENCE,
    Constraint,
    Consumes,
    Demonstration,
    Description,
    Direction,
    ExactProblem,
    ExampleScore,
    Exported,
    FitReport,
    Generation,
    Labelled,
    Likelihood,
    Message,
    Metric,
    MetricSpec,
    Opinion,
    PreferencePair,
    Prompt,
    Ranking,
    Reference,
    RewardParts,
    Rollout,
    Samples,
    Sampling,
    ScoredRollout,
    Sequences,
    Split,
    TokenScores,
    UpdateReport,
    UtilityTerm,
    Verdict,
    expand,
)
from alignbench.records.batches import DemonstrationBatch, LabelledBatch, PreferenceBatch
from alignbench.records.decoding import Decoded, Request
from alignbench.records.memory_plan import Does, Part, Work
from alignbench.records.source import Source
from alignbench.records.stages import StagePlace, StageResult
from alignbench.records.terms import LabelTerms, PairTerms, ResponseTerms, RolloutTerms, Terms
from alignbench.seeds import Seeds
from alignbench.selection import Selected, select
from alignbench.untrusted import redacted

__version__ = "0.2.0"

__all__ = [
    "MISSING_EOS",
    "POLICY",
    "REFERENCE",
    "AlgorithmConfig",
    "AlignbenchError",
    "Annotator",
    "Case",
    "Constraint",
    "Consumes",
    "CorrectedConfig",
    "DataSource",
    "Decoded",
    "Demonstration",
    "DemonstrationBatch",
    "Description",
    "Direction",
    "Does",
    "Evaluation",
    "ExactProblem",
    "ExampleScore",
    "Exported",
    "FitReport",
    "FittableRewardSource",
    "Format",
    "Generation",
    "ImplicitReward",
    "Judge",
    "Known",
    "LabelConfig",
    "LabelTerms",
    "Labelled",
    "LabelledBatch",
    "Likelihood",
    "MeasuredRanking",
    "Message",
    "Metric",
    "MetricSpec",
    "NonFiniteError",
    "Opinion",
    "OptimizerConfig",
    "PairTerms",
    "Part",
    "Policy",
    "PolicyOptimizer",
    "PolicyReader",
    "PreferenceBatch",
    "PreferenceConfig",
    "PreferencePair",
    "Progress",
    "Prompt",
    "Ranking",
    "Reference",
    "Register",
    "RegisterFunction",
    "Renamed",
    "ReportRow",
    "Request",
    "ResponseTerms",
    "RewardParts",
    "RewardSource",
    "Rollout",
    "RolloutConfig",
    "RolloutTerms",
    "RunFinished",
    "RunStarted",
    "RunStep",
    "Sampler",
    "Samples",
    "Sampling",
    "ScalarRole",
    "ScoredRollout",
    "Section",
    "Seeds",
    "Selected",
    "Sequences",
    "Source",
    "Split",
    "Stage",
    "StagePlace",
    "StageResult",
    "StageView",
    "Subject",
    "Terms",
    "TokenScores",
    "Tracker",
    "UpdateReport",
    "UserError",
    "UtilityTerm",
    "Verdict",
    "Watch",
    "Work",
    "bounded",
    "check_may_be_folder",
    "check_there",
    "expand",
    "hookimpl",
    "redacted",
    "select",
    "unknown_name",
    "user_path",
]

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = partial(moved, __name__)  # names that were here once
