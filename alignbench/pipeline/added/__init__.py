"""The user's own stages between those of a run: each is carried out once for all runs that have the same before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alignbench.app.config import RunConfig
from alignbench.contracts import DataSource, Policy, RewardSource
from alignbench.contracts.stage import PolicyReader, StageView
from alignbench.errors import UserError
from alignbench.pipeline.added.carrying_out import result_of
from alignbench.pipeline.experience import fitting
from alignbench.pipeline.stages import Rankings
from alignbench.pipeline.workbench import Workbench
from alignbench.records import Demonstration, Prompt, Split
from alignbench.records.stages import StagePlace
from alignbench.selection import Selected, digest
from alignbench.store import keys

_NOWHERE = Path()


@dataclass(frozen=True)
class Passed:
    """What the stages at one place came to. `key` names them and all before them; empty where there are none."""

    demonstrations: Sequence[Demonstration] = ()
    key: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def refuse_unserved(config: RunConfig, data: DataSource, *, ranked: bool, scored: bool) -> None:
    """Raises UserError where a stage needs what this run does not have: before a model is loaded."""
    after = {"rankings": ranked, "held_out": ranked, "score": scored}
    for chosen in config.stages:
        place: StagePlace = chosen.component.config.place  # type: ignore[attr-defined]
        before = place is StagePlace.BEFORE_SFT
        there = {"demonstrations": before and bool(data.demonstrations())}
        there |= dict.fromkeys(after, False) if before else after
        for need in getattr(chosen.component.config, "needs", ()):
            if not there[need]:
                raise UserError(
                    f"stages: {chosen.label} needs {_IN_WORDS[need]}, and a run of algo={config.algo.label} on data={config.data.label} "
                    f"has none {place.value.replace('_', ' ')}: leave it out, or choose another algo or data."
                )


_IN_WORDS = {
    "demonstrations": "demonstrations",
    "rankings": "rankings",
    "held_out": "held-out rankings",
    "score": "a reward source",
}


def before_sft(bench: Workbench, *, config: RunConfig, data: DataSource, policy: Policy) -> Passed:
    """The demonstrations that SFT imitates."""
    chosen, demonstrations = config.stages_at(StagePlace.BEFORE_SFT), data.demonstrations()
    if not chosen:  # the prompts need not be measured
        return Passed(demonstrations)
    prompts = tuple(fitting(policy, data.prompts(Split.TRAIN)))
    view = StageView(PolicyReader(policy), data, _NOWHERE, prompts, tuple(demonstrations))
    return _passed(bench, chosen, view, keys.of_beginning(config, data, policy, prompts))


def later_view(
    data: DataSource,
    policy: Policy,
    prompts: Sequence[Prompt],
    rankings: Rankings | None,
    reward: RewardSource | None,
) -> StageView:
    """What there is from the fit of the reward on; the policy is seen as it stands when a stage looks at it."""
    return StageView(
        PolicyReader(policy),
        data,
        _NOWHERE,
        tuple(prompts),
        rankings=rankings.train if rankings else (),
        held_out=rankings.held_out if rankings else (),
        score=reward.score if reward else None,
    )


def after_reward(bench: Workbench, config: RunConfig, view: StageView, *, before: str) -> Passed:
    """What looks at the SFT model, at the rankings and at the reward source, which `before` names."""
    if not (chosen := config.stages_at(StagePlace.AFTER_REWARD)):
        return Passed()
    rankings = keys.of_rankings(view.rankings), keys.of_rankings(view.held_out)
    seen = digest(before, keys.of_prompts(view.prompts), *rankings, keys.of_set_aside(view.data))
    return _passed(bench, chosen, view, seen)


def after_algorithm(bench: Workbench, config: RunConfig, view: StageView) -> Passed:
    """What looks at the trained policy. It is this run's alone: nothing of it is shared."""
    chosen = config.stages_at(StagePlace.AFTER_ALGORITHM)
    return _passed(bench.own(), chosen, view, bench.key) if chosen else Passed()


def _passed(bench: Workbench, chosen: Sequence[Selected], view: StageView, before: str) -> Passed:
    """One after another; each sees what those before it gave, and is named by them."""
    key, figures = before, dict[str, float]()
    for one in chosen:
        key = keys.of_stage(one, before=key)
        result = result_of(bench, one, view, key)
        figures |= {f"stage/{one.component.name}/{name}": value for name, value in result.figures.items()}
        if result.demonstrations is not None:
            view = dataclasses.replace(view, demonstrations=result.demonstrations)
    return Passed(view.demonstrations, key, figures)
