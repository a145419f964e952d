"""The policy as it stands, evaluated every so many updates with a cheap part of the evaluation (`eval.every`)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from alignbench import distributed
from alignbench.config import EvalSettings
from alignbench.contracts import Evaluation
from alignbench.curves import Curves
from alignbench.evaluation.suite import Evaluated, evaluation_prompts
from alignbench.progress import Display
from alignbench.records import Generation, Prompt
from alignbench.results.directory import RunDirectory
from alignbench.results.points import Points

STAGE = "evaluate points"


class AlongTraining:
    """A `training.Point`. Every point has the same prompts and the same chances, so that points are paired; it draws from seeds of
    its own, so that training is the same with it and without.

    `questions`, `evaluations` (by family) and `baseline` (the SFT model's responses) are those of the whole evaluation, `measure` is
    `suite.evaluate` of this policy, `save` writes it to a folder as it stands."""

    def __init__(
        self,
        settings: EvalSettings,
        directory: RunDirectory,
        curves: Curves,
        display: Display,
        *,
        questions: Sequence[Prompt],
        evaluations: Mapping[str, Evaluation],
        baseline: Sequence[Generation],
        save: Callable[[], Path],
        measure: Callable[..., Evaluated],
    ) -> None:
        points = settings.points
        self._settings = dataclasses.replace(settings, every=0, questions=points.questions, samples=points.samples)
        self._every, self._curves, self._display = settings.every, curves, display
        self._asked = evaluation_prompts(questions, self._settings)
        self._evaluations = [evaluations[name] for name in points.families or settings.families]
        ids = {prompt.id for prompt in self._asked}
        self._baseline = tuple(g for g in baseline if g.prompt.id in ids and g.index < points.samples)
        self._save, self._measure = save, measure
        self._points = Points(directory.path)
        before = distributed.agreed(self._points.lines)
        self._done = {line["update"] for line in before}
        if before:
            display.seconds[STAGE] = sum(line["seconds"] for line in before)  # what came before a kill counts

    def __call__(self, updates: int, last: bool) -> None:
        if not self._every:
            return
        if updates == 0:  # training starts, perhaps again: what another start has left says nothing of this one
            self._done.clear()
            self._display.seconds.pop(STAGE, None)
        if updates in self._done or not (last or updates % self._every == 0):
            return
        start = time.perf_counter()
        with self._display.aside(STAGE):
            found = self._measure(
                self._save(),
                self._asked,
                evaluations=self._evaluations,
                settings=self._settings,
                baseline=self._baseline,
                questionnaires=False,
            )
        self._points.add(updates, found.metrics, found.scores, time.perf_counter() - start)
        self._curves.evaluated(found.metrics)
        self._done.add(updates)
