"""What each stage does: supervised fine-tuning, rankings, the fit of a reward source, the algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from alignbench import functional
from alignbench.app.config import BudgetSettings, RankingsSettings
from alignbench.contracts import Annotator, FittableRewardSource, Policy, RewardSource
from alignbench.errors import NonFiniteError, UserError
from alignbench.optimizer_config import CorrectedConfig, LabelConfig, PreferenceConfig
from alignbench.pipeline.experience import (
    Batch,
    Overlapped,
    Reference,
    collect_rankings,
    demonstration_batches,
    label_data,
    labelled_batches,
    labels_of_pairs,
    pair_data,
    planned_updates,
    preference_batches,
    rollout_batches,
)
from alignbench.pipeline.training import LESS_MEMORY, NO_BUDGET, Point, Step, Trained, train
from alignbench.records import Consumes, Demonstration, FitReport, Labelled, PreferencePair, Prompt, Ranking, Sampling
from alignbench.seeds import Seeds
from alignbench.selection import Selected
from alignbench.store.checkpoints import Checkpoints, NoCheckpoints

NORMALISATION_SAMPLES = 512
"""Responses of the SFT model that a fitted reward source is normalised on."""


@dataclass(frozen=True)
class Rankings:
    """Rankings to learn from, and those held out to judge what was learnt."""

    train: tuple[Ranking, ...]
    held_out: tuple[Ranking, ...]
    over_window: int = 0
    """Recorded ones that are in neither, for their prompt does not fit."""
    report: Mapping[str, float] = field(default_factory=dict)
    """What the annotator said of its work, whichever run it was done for."""


@dataclass(frozen=True)
class Aligned:
    """What the algorithm did, and how much of what it was given it could use."""

    trained: Trained
    counts: Mapping[str, int]


def imitate(
    stage: str,
    chosen: Selected,
    demonstrations: Sequence[Demonstration],
    policy: Policy,
    *,
    seeds: Seeds,
    step: Step,
    budget: BudgetSettings = NO_BUDGET,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Trains on demonstrations: the lessons of a model without pretraining, and supervised fine-tuning."""
    usable = [d for d in demonstrations if policy.prompt_tokens(d.prompt) <= policy.max_prompt_tokens]
    if not usable:
        raise UserError(f"{stage}: no demonstration fits model.max_prompt_tokens={policy.max_prompt_tokens}.")
    updates = affordable(planned_updates(chosen.config, len(usable)), chosen.config.batch_size, budget)
    optimizer = chosen.build(policy=policy, updates=updates, seeds=seeds)
    batches = partial(demonstration_batches, policy, usable, chosen.config, updates=updates, seeds=seeds)
    return train(
        stage, optimizer, lambda start: batches(start=start),
        policy=policy, updates=updates, step=step, budget=budget, checkpoints=checkpoints,
    )  # fmt: skip


def affordable(updates: int, responses: int, budget: BudgetSettings) -> int:
    """Of the planned updates of so many responses each those that the budget lets happen, so that the schedule of the learning rate
    ends where training does. What tokens or seconds allow is known only afterwards."""
    return min(updates, math.ceil(budget.samples / responses)) if budget.samples else updates


def gather_rankings(
    settings: RankingsSettings,
    annotator: Annotator,
    policy: Policy,
    prompts: Sequence[Prompt],
    evaluation_ids: frozenset[str],
    *,
    seeds: Seeds,
) -> Rankings:
    """Has the SFT model's responses ranked, or takes the annotator's recorded rankings; holds some out.

    Recorded rankings of evaluation prompts are the held-out ones; where there are none, a share of the others is."""
    over_window = 0
    if annotator.samples_responses:
        rows = torch.randperm(len(prompts), generator=seeds.torch("prompts"))[: settings.prompts].tolist()
        rankings = collect_rankings(
            policy,
            annotator,
            [prompts[i] for i in rows],
            responses=settings.responses,
            temperature=settings.temperature,
            rng=seeds.torch("sampling"),
        )
    else:
        recorded = annotator.recorded()
        rankings = [r for r in recorded if policy.prompt_tokens(r.prompt) <= policy.max_prompt_tokens]
        over_window = len(recorded) - len(rankings)
        held_out = tuple(r for r in rankings if r.prompt.id in evaluation_ids)
        if held_out:
            return Rankings(tuple(r for r in rankings if r.prompt.id not in evaluation_ids), held_out, over_window)
    if len(rankings) < 2:
        raise UserError(f"{len(rankings)} rankings that fit the model's window are too few to learn from.")
    # Split by prompt: a prompt's rankings never lie on both sides.
    ids = list(dict.fromkeys(ranking.prompt.id for ranking in rankings))
    order = torch.randperm(len(ids), generator=seeds.torch("held out")).tolist()
    out = {ids[i] for i in order[: min(max(round(settings.held_out * len(ids)), 1), len(ids) - 1)]}
    return Rankings(
        tuple(r for r in rankings if r.prompt.id not in out),
        tuple(r for r in rankings if r.prompt.id in out),
        over_window,
    )


def fit_reward(
    reward: FittableRewardSource,
    rankings: Rankings,
    policy: Policy,
    prompts: Sequence[Prompt],
    annotator: Annotator,
    *,
    seeds: Seeds,
    step: Step,
    checkpoints: Checkpoints | None = None,
) -> FitReport:
    """Fits a reward source to the rankings and normalises it on fresh samples of the SFT model."""
    done = 0
    checkpoints = checkpoints or NoCheckpoints()

    def progress(
        update: int, updates: int, metrics: Mapping[str, float], state: Callable[[], Mapping[str, Any]] | None = None
    ) -> None:
        nonlocal done
        step("reward", update, updates, metrics)
        done = update
        if state:
            checkpoints.keep("reward", update, state, last=update == updates)

    rows = torch.randperm(len(prompts), generator=seeds.torch("prompts"))[:NORMALISATION_SAMPLES].tolist()
    rng = seeds.torch("sampling")
    baseline = policy.generate([prompts[i] for i in rows], Sampling(), rng=rng).samples
    try:
        with functional.within_memory("fitting the reward", *LESS_MEMORY):
            return reward.fit(
                rankings.train, rankings.held_out, baseline,
                annotator=annotator, progress=progress, state=checkpoints.restore("reward"),
            )  # fmt: skip
    except NonFiniteError as error:
        raise NonFiniteError(f"reward, after update {done}: {error}") from error


def align(
    chosen: Selected,
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    reward: RewardSource | None,
    pairs: Sequence[PreferencePair],
    labels: Sequence[Labelled] = (),
    seeds: Seeds,
    step: Step,
    budget: BudgetSettings = NO_BUDGET,
    checkpoints: Checkpoints | None = None,
    reference: Reference | None = None,
    point: Point = lambda updates, last: None,
) -> Aligned:
    """Runs the algorithm on the batches that it consumes: rollouts scored by `reward`, recorded `pairs`, or `labels`
    (of the pairs, where there are none)."""
    config = chosen.config
    if config.consumes is Consumes.NOTHING:
        return Aligned(Trained(), {})
    batches: Callable[..., Iterator[Batch]]
    counts: Mapping[str, int] = {}
    responses, before = config.batch_size, 0.0
    ahead: Overlapped | None = None
    if isinstance(config, PreferenceConfig):
        data = pair_data(policy, pairs, config, reference=reference)
        counts, updates = data.counts, planned_updates(config, len(data.pairs))
        responses, before = 2 * config.batch_size, data.seconds
        batches = partial(preference_batches, data, config)
    elif isinstance(config, LabelConfig):
        labelled = (
            label_data(policy, labels, config, reference=reference)
            if labels
            else labels_of_pairs(policy, pairs, config, reference=reference)
        )
        counts, updates = labelled.counts, planned_updates(config, len(labelled.rows) // 2)
        responses, before = config.responses, labelled.seconds
        batches = partial(labelled_batches, labelled, config)
    else:
        assert reward is not None, "it consumes rollouts"
        updates = planned_updates(config, len(prompts) * config.samples_per_prompt)
        batches = partial(rollout_batches, policy, reward, prompts, config)
        if isinstance(config, CorrectedConfig) and config.overlap:
            ahead = Overlapped(policy, reward, prompts, config, seeds)
    updates = affordable(updates, responses, budget)
    optimizer = chosen.build(policy=policy, updates=updates, seeds=seeds)
    feed = (
        partial(ahead.batches, updates) if ahead else lambda start: batches(updates=updates, seeds=seeds, start=start)
    )
    trained = train(
        chosen.component.name, optimizer, feed, policy=policy, updates=updates, step=step, budget=budget,
        checkpoints=checkpoints, point=point, before=before, ahead=ahead,
    )  # fmt: skip
    return Aligned(trained, counts)
