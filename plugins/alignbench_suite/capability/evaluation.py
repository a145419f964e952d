"""Capability: what alignment should not cost. Questions with known answers, and any task of lm-eval that the user names."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench import DataSource, Direction, Evaluation, ExampleScore, MetricSpec, Opinion, Subject, UserError
from alignbench_suite.config import CapabilityConfig, TasksConfig
from alignbench_suite.lm_eval_runner import FAMILY_SPECS, ask_family, run_tasks, task_specs
from alignbench_suite.scores import correct, per_prompt, with_opinion
from alignbench_suite.task_loading import included, sources
from alignbench_suite.tasks.files import content


class Capability(Evaluation):
    known = "alignbench_suite.known:capability"

    def __init__(self, config: CapabilityConfig) -> None:
        self.config = config

    def fingerprint(self) -> str:
        return content(self.config.path)

    def specs(self) -> Sequence[MetricSpec]:
        return (
            MetricSpec(
                "capability/accuracy", Direction.HIGHER, "share of responses where no opinion is stated", share=True
            ),
            *FAMILY_SPECS["capability"],
        )

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        unprompted = with_opinion(subject.by_prompt(), Opinion.NONE)
        return [
            *per_prompt("capability/accuracy", unprompted, correct),
            *ask_family(subject, "capability", limit=self.config.limit, path=self.config.path),
        ]


class Tasks(Evaluation):
    """Tasks are looked for when it is built, before anything is trained."""

    def __init__(self, config: TasksConfig) -> None:
        self.config = config
        # A bare default, outside of a run, names nothing.
        self._names = [] if isinstance(config.names, str) else config.names
        include = [] if config.include_path == TasksConfig().include_path else config.include_path
        self._sources = sources(config.path, include)
        if self._sources.folders and not self._names:
            raise UserError(
                f"eval.include_path={config.include_path} is read for the tasks that eval.tasks names, and it names none. "
                f"Choices: {', '.join(included(self._sources))}."
            )
        self._specs = task_specs(self._names, self._sources)

    def fingerprint(self) -> str:
        return self._sources.digest

    def applies(self, data: DataSource, *, ordinary_text: bool) -> bool:
        return ordinary_text and bool(self._names)

    def specs(self) -> Sequence[MetricSpec]:
        return self._specs

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        if self._names and not subject.ordinary_text:
            raise UserError(
                f"eval.tasks={self._names} asks in ordinary text, which this data source's own tokenizer cannot read: "
                "leave them out, or choose other data."
            )
        return run_tasks(subject, self._names, self._sources, limit=self.config.limit, as_capability=True)
