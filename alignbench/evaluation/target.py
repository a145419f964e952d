"""Carries out `alignbench evaluate`: the stages of a run that come after training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from alignbench import distributed, lifecycle
from alignbench.config import RunConfig
from alignbench.contracts import DataSource, FittableRewardSource, Policy, RewardSource
from alignbench.errors import UserError
from alignbench.evaluate import ELSEWHERE, Target
from alignbench.evaluation import stored
from alignbench.evaluation.judge import SourceJudge
from alignbench.evaluation.suite import Evaluated, evaluate, evaluation_prompts
from alignbench.progress import Display
from alignbench.records import Prompt, Split
from alignbench.results import environment
from alignbench.results.directory import BASELINE, RunDirectory
from alignbench.results.record import Identity, RunRecord, Status
from alignbench.results.render import print_table
from alignbench.seeds import Seeds
from alignbench.stages import build, fit_window, needs_reward, pick_device, refuse_judge

WEIGHTS = ("adapter", "model")


class NoPrompts(DataSource):
    """Of a model that nobody chose data for, questionnaires alone are asked."""

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return ()


@dataclass(frozen=True)
class Prepared:
    """What an evaluation works with."""

    policy: Policy
    data: DataSource
    questions: Sequence[Prompt]
    judge: SourceJudge | None
    seeds: Seeds


def evaluate_target(target: Target) -> Path:
    """Evaluates, prints the table and returns the new row's directory."""
    config = target.config
    with distributed.joined(config.device):
        display = Display(Console(stderr=True, highlight=False, quiet=not distributed.is_main()))
        environment.reset_peak_memory()
        directory, record = _begin(target)
        with lifecycle.ending(directory, record, display):
            lifecycle.announce_start(config, directory)
            _carry_out(target, directory, record, display)
        if distributed.is_main():
            print_table([directory.path], Console())
            print(f"\nThe row lies in {directory.path}")
    return directory.path


def _begin(target: Target) -> tuple[RunDirectory, RunRecord]:
    config = target.config
    path = distributed.agreed(
        lambda: RunDirectory.create(
            Path(config.results_dir), algo=target.name, model=config.model.label,
            data=_data_label(target), seed=config.seed, config_hash=target.config_hash,
        ).path
    )  # fmt: skip
    directory = RunDirectory(path)
    record = RunRecord(
        run_id=directory.run_id,
        status=Status.RUNNING,
        identity=_identity(target),
        reused={"model": target.run.name} if target.run else {},
    )
    if distributed.is_main():
        directory.write_config(target.yaml)
        directory.write_record(record)
    return directory, record


def _data_label(target: Target) -> str:
    return target.config.data.label if target.asks_prompts else "none"


def _identity(target: Target) -> Identity:
    """The run's, as this code and machine measure it; or that of a model of which no algorithm is known."""
    config = target.config
    who = lifecycle.identity(config, config.algo, target.config_hash, annotator=False, reward=False)
    if target.identity:
        kept = {name: getattr(target.identity, name) for name in ("annotator", "reward", "algo_label")}
        return dataclasses.replace(who, **kept)
    component = config.model.component
    return dataclasses.replace(
        who, algo=ELSEWHERE, algo_label=target.name, data=_data_label(target),
        plugin=component.distribution, plugin_version=component.version,
    )  # fmt: skip


def _carry_out(target: Target, directory: RunDirectory, record: RunRecord, display: Display) -> None:
    prepared = _prepare(target, display)
    evaluated = _of_run(target, prepared, directory, display) if target.run else _of_model(target, prepared, display)
    with directory.writing():
        stored.save(evaluated, directory.path)
    said = prepared.judge.report() if prepared.judge else {}
    reports = {f"judge/{name}": value for name, value in said.items()}
    lifecycle.finish(
        directory, record,
        metrics=evaluated.metrics, reports=reports, counts=prepared.data.counts(), ended=None, reused=record.reused,
        cost=lifecycle.spent(display.seconds),
    )  # fmt: skip


def _prepare(target: Target, display: Display) -> Prepared:
    config = target.config
    torch.use_deterministic_algorithms(True, warn_only=True)
    seeds, device = Seeds(config.seed), pick_device(config.device)
    with display.stage("data"):
        data = build(config.data, seeds=seeds.child("data")) if target.asks_prompts else NoPrompts()
        refuse_judge(config, data)
    with display.stage("model"):
        policy: Policy = build(config.model, tokenizer=data.tokenizer(), device=device, seeds=seeds.child("model"))
    held_out = data.prompts(Split.EVALUATION)
    questions = evaluation_prompts(fit_window(policy, held_out, "evaluation", display), config.eval) if held_out else ()
    judge = None
    if config.judge:
        source = build(config.judge, policy=policy, data=data, seeds=seeds.child("judge"))
        judge = SourceJudge(config.judge.label, source, policy, display.say)
    return Prepared(policy, data, questions, judge, seeds)


def _measuring(config: RunConfig, prepared: Prepared) -> Callable[..., Evaluated]:
    """`evaluate` with all that is the same for every checkpoint."""
    return partial(
        evaluate,
        prepared.policy,
        prompts=prepared.questions,
        evaluations=[build(chosen) for chosen in config.evaluations],
        settings=config.eval,
        data=prepared.data,
        judge=prepared.judge,
        seeds=prepared.seeds.child("evaluation"),
    )


def _of_model(target: Target, prepared: Prepared, display: Display) -> Evaluated:
    """It is its own reference: nothing is known of where it started."""
    prepared.policy.freeze_reference()
    with display.stage("evaluate"):
        return _measuring(target.config, prepared)(checkpoint=Path(target.name), reward=None, baseline=None)


def _of_run(target: Target, prepared: Prepared, directory: RunDirectory, display: Display) -> Evaluated:
    """The SFT model first, which is the reference and the baseline, then the policy."""
    assert target.run is not None, "of a run"
    config, policy, measure = target.config, prepared.policy, _measuring(target.config, prepared)
    started = target.run if config.imitates else target.run / BASELINE
    start, end = weights(started), weights(target.run)
    policy.load(start)
    policy.freeze_reference()
    reward: RewardSource | None = None
    if needs_reward(config):
        reward = build(config.reward, policy=policy, data=prepared.data, seeds=prepared.seeds.child("reward"))
        if isinstance(reward, FittableRewardSource) and reward.needs_rankings(config.reward.config):
            reward.load(target.run / "reward")
    policy.load(start)
    with display.stage("evaluate sft"):
        baseline = measure(checkpoint=start, reward=reward, baseline=None)
    if config.imitates:
        return baseline
    home = directory.baseline()
    with directory.writing():
        stored.save(baseline, home.path)
    lifecycle.finish_baseline(
        config, home,
        metrics=baseline.metrics, counts=prepared.data.counts(), seconds=display.seconds,
        annotator=bool(target.identity and target.identity.annotator), reward=reward is not None,
    )  # fmt: skip
    policy.load(end)
    with display.stage(f"evaluate {target.name}"):
        return measure(
            checkpoint=end,
            reward=reward,
            baseline=baseline.generations,
            candidates=config.algo.config.candidates,
            optimum=partial(config.algo.component.load().optimum, config.algo.config),
        )


def weights(folder: Path) -> Path:
    """Where a run keeps its policy."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_dir()), None)
    if found is None:
        raise UserError(f"{folder} has no {' or '.join(WEIGHTS)} folder: its weights are gone.")
    return found
