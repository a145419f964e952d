"""The stages of the pipeline, each a function: what goes in, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from alignbench import distributed, functional
from alignbench.checkpoints import Checkpoints, NoCheckpoints
from alignbench.config import BudgetSettings, RankingsSettings, RunConfig, Selected
from alignbench.contracts import Annotator, DataSource, FittableRewardSource, Policy, RewardSource
from alignbench.errors import NonFiniteError, UserError
from alignbench.experience import (
    Batch,
    Reference,
    collect_rankings,
    demonstration_batches,
    fitting,
    pair_data,
    planned_updates,
    preference_batches,
    rollout_batches,
)
from alignbench.optimizer_config import PreferenceConfig
from alignbench.progress import Display
from alignbench.records import Consumes, Demonstration, FitReport, PreferencePair, Prompt, Ranking, Sampling, Split
from alignbench.seeds import Seeds
from alignbench.training import LESS_MEMORY, NO_BUDGET, Point, Step, Trained, train

NORMALISATION_SAMPLES = 512
"""Responses of the SFT model that a fitted reward source is normalised on."""


@dataclass(frozen=True)
class Rankings:
    """Rankings to learn from, and those held out to judge what was learnt."""

    train: tuple[Ranking, ...]
    held_out: tuple[Ranking, ...]


@dataclass(frozen=True)
class Aligned:
    """What the algorithm did, and how many of the pairs it was given it could use."""

    trained: Trained
    counts: Mapping[str, int]


def build(chosen: Selected, **wiring: Any) -> Any:
    """A component from its config and what its kind is wired to."""
    return chosen.build(**wiring)


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name!r} is not a device: choose auto, cpu, cuda or cuda:<number>.")
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise UserError(
            f"device={name}: this machine has {gpus or 'no'} usable GPUs; choose device=auto or device=cpu."
        )
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # what asks for no device by name takes the present one
    return device


def needs_rankings(config: RunConfig) -> bool:
    """Whether this run's algorithm or its reward source learns from rankings."""
    if needs_reward(config):
        return bool(config.reward.load().needs_rankings(config.reward.config))
    return config.algo.config.consumes is Consumes.PREFERENCES


def needs_reward(config: RunConfig) -> bool:
    """Whether this run's algorithm learns from scores, or chooses by them."""
    return bool(config.algo.config.needs_scores)


def refuse_impossible(config: RunConfig, data: DataSource, annotator: Annotator | None) -> None:
    """Refuses, before any model is loaded, a run whose data cannot give what its algorithm consumes."""
    algo, source = f"algo={config.algo.label}", f"data={config.data.label}"
    consumes = config.algo.config.consumes
    if consumes is Consumes.DEMONSTRATIONS and not data.demonstrations():
        raise UserError(f"{algo} learns from demonstrations, and {source} has none: choose another algo or data.")
    if not data.prompts(Split.TRAIN) or not data.prompts(Split.EVALUATION):
        raise UserError(f"{source} has no training or no evaluation prompts: there is nothing to respond to.")
    for slot in ("algo", "sft", *(["reward"] if needs_reward(config) else [])):
        refuse_alone(slot, getattr(config, slot))
    if needs_reward(config):
        config.reward.component.load().check_data(config.reward.config, data)
    refuse_judge(config, data)
    chosen = config.algo.config
    asks = chosen.needs_probabilities if isinstance(chosen, PreferenceConfig) else ""
    if annotator and asks and not knows_probabilities(annotator):
        raise UserError(
            f"{algo} is to learn from the annotator's own probabilities ({asks}), and annotator={config.annotator.label} "
            "knows none: change that setting, or choose an annotator that does."
        )
    if annotator and not annotator.samples_responses and not annotator.recorded():
        raise UserError(
            f"{algo} needs rankings, and annotator={config.annotator.label} has none for {source}: choose an annotator "
            "that ranks samples, or data with recorded rankings."
        )


def refuse_alone(slot: str, chosen: Selected) -> None:
    """Refuses, where several processes share a run, what can only be alone."""
    if distributed.world_size() > 1 and not getattr(chosen.component.load(), "shares_batches", True):
        raise UserError(
            f"{slot}={chosen.label} cannot share its batches among {distributed.world_size()} processes "
            "(shares_batches is False): run it in one."
        )


def refuse_judge(config: RunConfig, data: DataSource) -> None:
    """Refuses a judge that cannot serve this data, or that would have to learn from rankings first."""
    if not config.judge:
        return
    judge: type[RewardSource] = config.judge.load()
    refuse_alone("reward@judge", config.judge)
    judge.check_data(config.judge.config, data)
    if judge.needs_rankings(config.judge.config):
        raise UserError(
            f"reward@judge={config.judge.label} is fitted to rankings, and a judge is to know better than they do: "
            "choose one that is not."
        )


def knows_probabilities(annotator: Annotator) -> bool:
    """Whether it says more than the contract's default, which is that it does not know."""
    return type(annotator).preference is not Annotator.preference


def fit_window(policy: Policy, prompts: Sequence[Prompt], what: str, display: Display) -> list[Prompt]:
    """The prompts that fit; those that do not are counted aloud."""
    kept = fitting(policy, prompts)
    if not kept:
        raise UserError(
            f"None of the {len(prompts)} {what} prompts fits model.max_prompt_tokens={policy.max_prompt_tokens}: "
            "raise it."
        )
    if len(kept) < len(prompts):
        dropped = len(prompts) - len(kept)
        display.say(f"  {dropped} of {len(prompts)} {what} prompts set aside: over {policy.max_prompt_tokens} tokens")
    return kept


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
    updates = planned_updates(chosen.config, len(usable))
    optimizer = build(chosen, policy=policy, updates=updates, seeds=seeds)
    batches = partial(demonstration_batches, policy, usable, chosen.config, updates=updates, seeds=seeds)
    return train(
        stage, optimizer, lambda start: batches(start=start),
        policy=policy, updates=updates, step=step, budget=budget, checkpoints=checkpoints,
    )  # fmt: skip


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
        rankings = [r for r in annotator.recorded() if policy.prompt_tokens(r.prompt) <= policy.max_prompt_tokens]
        held_out = tuple(r for r in rankings if r.prompt.id in evaluation_ids)
        if held_out:
            return Rankings(tuple(r for r in rankings if r.prompt.id not in evaluation_ids), held_out)
    if len(rankings) < 2:
        raise UserError(f"{len(rankings)} rankings that fit the model's window are too few to learn from.")
    # Split by prompt: a prompt's rankings never lie on both sides.
    ids = list(dict.fromkeys(ranking.prompt.id for ranking in rankings))
    order = torch.randperm(len(ids), generator=seeds.torch("held out")).tolist()
    out = {ids[i] for i in order[: min(max(round(settings.held_out * len(ids)), 1), len(ids) - 1)]}
    return Rankings(
        tuple(r for r in rankings if r.prompt.id not in out), tuple(r for r in rankings if r.prompt.id in out)
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
    seeds: Seeds,
    step: Step,
    budget: BudgetSettings = NO_BUDGET,
    checkpoints: Checkpoints | None = None,
    reference: Reference | None = None,
    point: Point = lambda updates, last: None,
) -> Aligned:
    """Runs the algorithm on the batches that it consumes: rollouts scored by `reward`, or recorded `pairs`."""
    config = chosen.config
    if config.consumes is Consumes.NOTHING:
        return Aligned(Trained(), {})
    batches: Callable[..., Iterator[Batch]]
    counts: Mapping[str, int] = {}
    if isinstance(config, PreferenceConfig):
        data = pair_data(policy, pairs, config, reference=reference)
        counts, updates = data.counts, planned_updates(config, len(data.pairs))
        batches = partial(preference_batches, data, config)
    else:
        assert reward is not None, "it consumes rollouts"
        updates = planned_updates(config, len(prompts) * config.samples_per_prompt)
        batches = partial(rollout_batches, policy, reward, prompts, config)
    optimizer = build(chosen, policy=policy, updates=updates, seeds=seeds)
    trained = train(
        chosen.component.name, optimizer, lambda start: batches(updates=updates, seeds=seeds, start=start),
        policy=policy, updates=updates, step=step, budget=budget, checkpoints=checkpoints, point=point,
    )  # fmt: skip
    return Aligned(trained, counts)
