"""The policy as it stands, evaluated every so many updates with a cheap part of the evaluation (`eval.every`)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from alignbench import distributed
from alignbench.evaluation.suite import Suite, evaluation_prompts
from alignbench.pipeline.workbench import Workbench, saved
from alignbench.records import Generation, Prompt
from alignbench.results.compared.training_points import Points
from alignbench.results.disk.directory import CHECKPOINTS, RunDirectory
from alignbench.seeds import Seeds

STAGE = "evaluate points"


class AlongTraining:
    """A `training.Point`. Every point has the same prompts and the same chances, so that points are paired; it draws from `seeds`
    of its own, so that training is the same with it and without.

    `suite` is the whole evaluation, with `questions` and the SFT model's responses to them, `baseline`."""

    def __init__(
        self,
        bench: Workbench,
        suite: Suite,
        questions: Sequence[Prompt],
        baseline: Sequence[Generation],
        *,
        seeds: Seeds,
    ) -> None:
        settings, points = suite.settings, suite.settings.points
        asked = dataclasses.replace(settings, every=0, questions=points.questions, samples=points.samples)
        evaluations = dict(zip(settings.families, suite.evaluations, strict=True))
        self._bench, self._every = bench, settings.every
        self._suite = dataclasses.replace(
            suite,
            evaluations=[evaluations[name] for name in points.families or settings.families],
            settings=asked,
            seeds=seeds,
            judge=suite.judge if points.judge else None,
            questionnaires=False,
        )
        self._questions = evaluation_prompts(questions, asked)
        ids = {prompt.id for prompt in self._questions}
        self._baseline = tuple(g for g in baseline if g.prompt.id in ids and g.index < points.samples)
        self._points = Points(bench.directory.path)
        before = distributed.agreed(self._points.lines)
        self._done = {line["update"] for line in before}
        if before:
            bench.display.seconds[STAGE] = sum(line["seconds"] for line in before)  # what came before a kill counts

    def __call__(self, updates: int, last: bool) -> None:
        if not self._every:
            return
        if updates == 0:  # training starts, perhaps again: what another start has left says nothing of this one
            self._done.clear()
            self._bench.display.seconds.pop(STAGE, None)
        if updates in self._done or not (last or updates % self._every == 0):
            return
        start = time.perf_counter()
        with self._bench.display.aside(STAGE):
            checkpoint = saved(self._suite.policy, RunDirectory(self._bench.directory.path / CHECKPOINTS))
            found = self._suite.evaluate(checkpoint, self._questions, baseline=self._baseline)
        self._points.add(updates, found.metrics, found.scores, found.generations, time.perf_counter() - start)
        if not last:  # the whole evaluation follows, at the same update
            self._bench.curves.evaluated(found.metrics, found.generations, updates)
        self._done.add(updates)
