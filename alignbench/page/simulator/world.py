"""What stands behind a simulator: an SFT model with the data, the annotators and the rewards of the runs that started from it."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from alignbench.app.config import RunConfig
from alignbench.app.target import judge_of, of_run
from alignbench.contracts import Annotator, DataSource, FittableRewardSource, Policy, RewardSource
from alignbench.errors import AlignbenchError
from alignbench.page.simulator.starts import MOST_RUNS, Start
from alignbench.pipeline.display import Display
from alignbench.pipeline.evaluate import weights
from alignbench.pipeline.preparation import load_model, needs_reward
from alignbench.plugins import Kind, registry
from alignbench.records import Split
from alignbench.results.disk.directory import BASELINE
from alignbench.results.disk.runs import StoredRun
from alignbench.seeds import Seeds
from alignbench.selection import digest

MOST_REWARDS, OF_PRETRAINED = 6, 2
"""Rewards that are shown, the latest: each learned one holds a model of its own."""


@dataclass(frozen=True)
class Named:
    """A reward source by what it was made from, so that no other is ever taken for it; or an annotator by its component's name."""

    name: str
    label: str


@dataclass(frozen=True)
class World:
    """The policy holds the SFT model, as its reference too. `gold`: whoever judged the latest run that was judged, where the data knows no
    truth; None where it does, or nobody judged, or whoever did cannot be had, or would have to be asked elsewhere, and perhaps be paid."""

    start: Start
    config: RunConfig
    seeds: Seeds
    data: DataSource
    policy: Policy
    annotators: tuple[tuple[Named, Annotator], ...]
    rewards: tuple[tuple[Named, RewardSource], ...]
    gold: tuple[Named, RewardSource] | None = None


def load(start: Start) -> World:
    """Reads it from the folders of its runs."""
    first = start.runs[0]
    config = of_run(first.path, ()).config
    seeds = Seeds(config.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    data: DataSource = config.data.build(seeds=seeds.child("data"))
    policy = _sft(config, data, first)
    annotators, rewards = tuple(_annotators(data, seeds)), tuple(_rewards(start, data, policy))
    return World(start, config, seeds, data, policy, annotators, rewards, _gold(start, data, policy))


def _sft(config: RunConfig, data: DataSource, run: StoredRun) -> Policy:
    policy = load_model(config, data, Seeds(config.seed), Display(Console(quiet=True)))
    policy.load(weights(run.path / BASELINE))
    policy.freeze_reference()
    return policy


def _annotators(data: DataSource, seeds: Seeds) -> list[tuple[Named, Annotator]]:
    """Those that rank this data and tell the terms of their utility, as their plugins set them."""
    found = []
    for component in registry().of(Kind.ANNOTATOR):
        try:
            annotator: Annotator = component.load()(component.config(), data=data, seeds=seeds.child("annotator"))
            if annotator.utility_terms():
                found.append((Named(component.name, component.name), annotator))
        except (AlignbenchError, TypeError):  # it is for other data, or has a setting that must be given
            continue
    return found


def _gold(start: Start, data: DataSource, sft: Policy) -> tuple[Named, RewardSource] | None:
    held_out, run = data.prompts(Split.EVALUATION), _judged(start)
    if run is None or not held_out or data.judge(held_out[0], "", finished=True) is not None:
        return None
    try:
        judge = judge_of(run.path)
        if judge is None or judge.load().asks_anybody(judge.config):
            return None
        seeds = Seeds(run.record.identity.seed).child("judge")
        source: RewardSource = judge.build(policy=sft, data=data, seeds=seeds)
    except AlignbenchError:  # of a plugin that is gone, say: the rest of the page needs no judge
        return None
    return Named(judged_by(start), f"reward@judge={judge.label}"), source


def _judged(start: Start) -> StoredRun | None:
    return next((run for run in start.runs if run.settings.get("judge.component")), None)


def judged_by(start: Start) -> str:
    """Names the judge of the latest run that was judged by its settings; empty where none was."""
    run = _judged(start)
    settings = {key: value for key, value in run.settings.items() if key.startswith("judge.")} if run else {}
    return digest(settings) if settings else ""


def _rewards(start: Start, data: DataSource, sft: Policy) -> list[tuple[Named, RewardSource]]:
    """Those of `shown`. Two of one label, as by an annotator with other weights, are told apart by a run that had each."""
    runs = shown(start, most=OF_PRETRAINED if sft.pretrained else MOST_REWARDS)
    labels = Counter(named.label for named, _ in runs)
    found = []
    for named, run in runs:
        label = f"{named.label}, as in {run.path.name}" if labels[named.label] > 1 else named.label
        found.append((Named(named.name, label), _source(run, data, sft)))
    return found


def shown(start: Start, most: int) -> list[tuple[Named, StoredRun]]:
    """The latest different rewards that the runs had, each with the latest run that had it; the oldest first."""
    found: dict[str, tuple[Named, StoredRun]] = {}
    for run in start.runs:
        if len(found) == most:
            break
        if (named := reward_of(run)) is not None:
            found.setdefault(named.name, (named, run))
    return list(reversed(found.values()))


def is_current(world: World, start: Start) -> bool:
    """Whether it holds the rewards of all runs that are there now, and their judge."""
    most = OF_PRETRAINED if world.policy.pretrained else MOST_REWARDS
    names = [named.name for named, _ in shown(start, most)]
    same_judge = judged_by(world.start) == judged_by(start)
    return world.start.key == start.key and same_judge and names == [named.name for named, _ in world.rewards]


def own_reward(world: World, run: StoredRun) -> RewardSource:
    """The reward that a run was trained with, or chooses by: its own, also where that is none of those that are shown."""
    own = reward_of(run)
    for named, source in world.rewards:
        if own is not None and named.name == own.name:
            return source
    return _source(run, world.data, world.policy)


def _source(run: StoredRun, data: DataSource, sft: Policy) -> RewardSource:
    config = of_run(run.path, ()).config
    fitted = issubclass(config.reward.load(), FittableRewardSource)
    policy = _sft(config, data, run) if fitted else sft  # one that is learnt adds a role to a model of its own
    source: RewardSource = config.reward.build(policy=policy, data=data, seeds=Seeds(config.seed).child("reward"))
    if isinstance(source, FittableRewardSource) and source.needs_rankings(config.reward.config):
        source.load(run.path / "reward")
    return source


def reward_of(run: StoredRun) -> Named | None:
    """Named by all that it was made from, the settings of its annotator too; None where its algorithm has none."""
    who = run.record.identity
    return _reward_of(run.path, who.reward, who.annotator) if who.reward else None


@functools.lru_cache(maxsize=4 * MOST_RUNS)
def _reward_of(run: Path, reward: str, annotator: str | None) -> Named | None:
    config = of_run(run, ()).config
    if not needs_reward(config):
        return None
    made_from = digest(config.seed, config.reward_hash, config.annotator_hash if annotator else "")
    return Named(f"reward-{made_from[:12]}", f"{reward} from the rankings of {annotator}" if annotator else reward)


def checkpoint(run: StoredRun) -> Path:
    """The weights that a run ended with."""
    return weights(run.path)
