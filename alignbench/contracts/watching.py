"""The contracts of what watches a run: evaluations of its checkpoints, and trackers of its curves. See `contracts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignbench.contracts.sources import DataSource
from alignbench.contracts.subject import Subject
from alignbench.records import ExampleScore, Generation, MetricSpec


class Evaluation(ABC):
    """Per-example scores of a checkpoint. It sees neither the live policy nor the algorithm's name. Built with: nothing."""

    known: ClassVar[str] = ""
    """As RewardSource.known."""

    def fingerprint(self) -> str:
        """Names what its scores depend on beside its config and the source of its package (a folder's content): runs share the
        SFT model's evaluation under it."""
        return ""

    def applies(self, data: DataSource, *, ordinary_text: bool) -> bool:
        """Whether it can measure anything on this data; `ordinary_text` as in Subject. Asked before anything is trained: a run none of
        whose evaluations can is refused."""
        return True

    @abstractmethod
    def specs(self) -> Sequence[MetricSpec]:
        """Every metric that `evaluate` may return."""

    @abstractmethod
    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        """Scores per example. A metric that does not apply to the data is left out, never filled with zeros."""


class Tracker(ABC):
    """Where training curves go. Built with: directory, run_name, settings (the resolved config).

    Names are the same for every algorithm, so that all share charts: `train/<figure>` of the algorithm (train/reward, train/kl),
    `<stage>/<figure>` of the stages before it, `eval/<family>/<metric>` and `time/<what>` (seconds). A name's step is the update of its stage."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """The figures of an update, as `<stage>/reward`, or of an evaluation along training, as `evaluation/helpfulness/accuracy`; `step` is the
        line of train.jsonl. It is on the training path: be quick."""

    def responses(self, generations: Sequence[Generation], step: int) -> None:  # noqa: B027 (to override is a choice)
        """Some responses of the policy after `step` updates, for people to read: to the same prompts each time. Nothing, unless overridden."""

    @abstractmethod
    def finish(self) -> None:
        """Called once at the end, also of a run that fails. What it raises is a warning."""
