"""From a project's rankings to a trained policy: the ordinary command, on what people have ranked until now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignbench.app.compose import load_config
from alignbench.app.overrides import quoted
from alignbench.errors import AlignbenchError, UserError, unknown_name
from alignbench.page.rank import export
from alignbench.page.rank.store import Project
from alignbench.page.training import Training, Trainings, checked
from alignbench.plugins import Kind, registry
from alignbench.records import Consumes
from alignbench.results.disk.directory import BASELINE, RESULT
from alignbench.results.disk.record import RunRecord

LEARNING = (Consumes.PREFERENCES, Consumes.LABELS, Consumes.ROLLOUTS)
PASSES = 10.0
"""Over the rankings, of what learns from them directly. People give few: the updates that suit thousands of rankings would learn
twenty by heart."""


def algorithms() -> list[str]:
    """Those that learn from rankings, directly or by a reward model: those that need none first."""
    known = [
        (component.name, getattr(component.config, "consumes", None)) for component in registry().of(Kind.ALGORITHM)
    ]
    return [name for consumes in LEARNING for name, its in sorted(known, key=lambda one: one[0]) if its is consumes]


def amount(algo: str, passes: object) -> dict[str, float]:
    """How long such an algorithm is trained; one that samples for itself learns as long as it is set to."""
    if getattr(registry().get(Kind.ALGORITHM, algo).config, "consumes", None) is Consumes.ROLLOUTS:
        return {}
    if isinstance(passes, bool) or not isinstance(passes, (int, float)) or not 0 < passes <= 1000:
        raise UserError("The passes over the rankings are a number above 0, at most 1000.")
    return {"algo.updates": 0, "algo.passes": passes}


class RankTrainings:
    """Runs that were started from projects; each belongs to its own."""

    def __init__(self, results: Path) -> None:
        self._results, self._trainings = results, Trainings(results)

    def start(self, project: Project, choices: Mapping[str, Any]) -> Training:
        """With the settings that the project was sampled with: its responses' own model is what learns. `passes` are those over
        the rankings."""
        passes, choices = choices.get("passes", PASSES), {k: v for k, v in choices.items() if k != "passes"}
        if odd := [key for key in choices if key not in ("algo", "seed") and not key.startswith("algo.")]:
            raise UserError(f"{odd[0][:60]!a} cannot be set here: the project says what is trained.")
        if choices.get("algo") not in algorithms():
            raise unknown_name("algorithm", str(choices.get("algo", ""))[:60], algorithms())
        settings = project.settings
        if settings.kind != "rank":
            raise UserError("Two checkpoints are compared here: there is nothing to train on.")
        choices = {**amount(str(choices["algo"]), passes), **choices}
        path = export.for_training(project)
        fixed = (*settings.overrides, "annotator=recorded", f"annotator.path={quoted(str(path))}")
        # People say which they prefer, and not with which probability.
        asks = getattr(load_config((*fixed, *checked(choices))).algo.config, "needs_probabilities", "")
        if asks.endswith("=true") and asks.removesuffix("=true") not in choices:
            fixed += (f"{asks.removesuffix('=true')}=false",)
        rows = sum(math.comb(len(answer.judgement.ranks), 2) for answer in project.answers())
        return self._trainings.start(choices, fixed=fixed, title=_title(project), rows=rows)

    def of(self, project: Project) -> list[Training]:
        """The latest first."""
        return [training for training in self._trainings.all() if training.title == _title(project)]

    def progress(self, project: Project, name: str, after: int, point: int) -> dict[str, Any]:
        """As `Trainings.progress`; `before`: what the SFT model that it started from was measured to be."""
        self._own(project, name)
        found = self._trainings.progress(name, after, point)
        return {**asdict(found), "before": self._before(found.run) if found.metrics else {}}

    def stop(self, project: Project, name: str) -> None:
        self._own(project, name)
        self._trainings.stop(name)

    def resume(self, project: Project, name: str) -> Training:
        self._own(project, name)
        return self._trainings.resume(name)

    def _own(self, project: Project, name: str) -> None:
        if name not in [training.id for training in self.of(project)]:
            raise UserError(f"The project {project.name} has started no such training.")

    def _before(self, run: str) -> dict[str, float | None]:
        try:
            record = RunRecord.from_json((self._results / run / BASELINE / RESULT).read_text(encoding="utf-8"))
        except (OSError, AlignbenchError):
            return {}
        return {name: m.value if math.isfinite(m.value) else None for name, m in record.metrics.items()}


def _title(project: Project) -> str:
    return f"rank/{project.name}"
