"""Capability: what alignment should not cost. Questions with known answers, and any task of lm-eval that the user names."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench import Direction, Evaluation, ExampleScore, MetricSpec, Opinion, Subject, UserError
from alignbench_suite.config import CapabilityConfig, TasksConfig
from alignbench_suite.lm_eval_runner import FAMILY_SPECS, ask_family, run_tasks, task_specs
from alignbench_suite.scores import correct, per_prompt, with_opinion


class Capability(Evaluation):
    def __init__(self, config: CapabilityConfig) -> None:
        self.config = config

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
    def __init__(self, config: TasksConfig) -> None:
        self.config = config
        self._names = [] if isinstance(config.names, str) else config.names  # a bare default, outside of a run

    def specs(self) -> Sequence[MetricSpec]:
        return task_specs(self._names, self.config.path)

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        if self._names and not subject.ordinary_text:
            raise UserError(
                f"eval.tasks={self._names} asks in ordinary text, which this data source's own tokenizer cannot read: "
                "leave them out, or choose other data."
            )
        return run_tasks(subject, self._names, limit=self.config.limit, path=self.config.path, as_capability=True)
