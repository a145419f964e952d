"""What stands behind a simulator: an SFT model with the data, the annotators and the rewards of the runs that started from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from alignbench.app.config import RunConfig
from alignbench.app.target import of_run
from alignbench.contracts import Annotator, DataSource, FittableRewardSource, Policy, RewardSource
from alignbench.errors import AlignbenchError
from alignbench.page.simulator.starts import Start
from alignbench.pipeline.display import Display
from alignbench.pipeline.evaluate import weights
from alignbench.pipeline.preparation import load_model, needs_reward
from alignbench.plugins import Kind, registry
from alignbench.results.disk.directory import BASELINE
from alignbench.results.disk.runs import StoredRun
from alignbench.seeds import Seeds


@dataclass(frozen=True)
class Named:
    """A reward source of a run, or an annotator by its component's name."""

    name: str
    label: str


@dataclass(frozen=True)
class World:
    """The policy holds the SFT model, as its reference too."""

    start: Start
    config: RunConfig
    seeds: Seeds
    data: DataSource
    policy: Policy
    annotators: tuple[tuple[Named, Annotator], ...]
    rewards: tuple[tuple[Named, RewardSource], ...]


def load(start: Start) -> World:
    """Reads it from the folders of its runs."""
    first = start.runs[0]
    config = of_run(first.path, ()).config
    seeds = Seeds(config.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    data: DataSource = config.data.build(seeds=seeds.child("data"))
    policy = _sft(config, data, first)
    return World(
        start, config, seeds, data, policy, tuple(_annotators(data, seeds)), tuple(_rewards(start, data, policy))
    )


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


def _rewards(start: Start, data: DataSource, sft: Policy) -> list[tuple[Named, RewardSource]]:
    """One of each kind that the runs had, the latest: a learned one by whose rankings it learnt from. In the order in which the kinds
    came up, so that a later run leaves the names as they are."""
    latest = {label: run for run in reversed(start.runs) if (label := reward_label(run)) is not None}
    found = []
    for place, (label, run) in enumerate(latest.items()):
        config = of_run(run.path, ()).config
        fitted = issubclass(config.reward.load(), FittableRewardSource)
        policy = _sft(config, data, run) if fitted else sft  # one that is learnt adds a role to a model of its own
        source: RewardSource = config.reward.build(policy=policy, data=data, seeds=Seeds(config.seed).child("reward"))
        if isinstance(source, FittableRewardSource) and source.needs_rankings(config.reward.config):
            source.load(run.path / "reward")
        found.append((Named(f"reward{place}", label), source))
    return found


def reward_label(run: StoredRun) -> str | None:
    """What tells its reward from another's, in words; None where its algorithm has none."""
    who = run.record.identity
    if not who.reward or not needs_reward(of_run(run.path, ()).config):
        return None
    return f"{who.reward} from the rankings of {who.annotator}" if who.annotator else who.reward


def checkpoint(run: StoredRun) -> Path:
    """The weights that a run ended with."""
    return weights(run.path)
