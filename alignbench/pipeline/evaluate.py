"""Carries out `alignbench evaluate`: the stages of a run that come after training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from alignbench import distributed
from alignbench.app.target import ELSEWHERE, Target
from alignbench.contracts import DataSource, FittableRewardSource, RewardSource
from alignbench.errors import UserError
from alignbench.evaluation import frontier as frontiers
from alignbench.evaluation import stored
from alignbench.evaluation.suite import Evaluated, Suite, evaluation_prompts
from alignbench.pipeline import lifecycle
from alignbench.pipeline.display import Display
from alignbench.pipeline.preparation import build_judge, fit_window, load_model, needs_reward, refuse_judge, say_notes
from alignbench.records import Prompt, Split
from alignbench.results.disk import environment
from alignbench.results.disk.directory import BASELINE, RunDirectory
from alignbench.results.disk.record import Identity, RunRecord
from alignbench.results.shown.render import print_table
from alignbench.seeds import Seeds

WEIGHTS = ("adapter", "model")


class NoPrompts(DataSource):
    """Of a model that nobody chose data for, questionnaires alone are asked."""

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return ()


def evaluate_target(target: Target) -> Path:
    """Evaluates, prints the table and returns the new row's directory."""
    config = target.config
    with distributed.joined(config.device):
        display = Display(Console(stderr=True, highlight=False, quiet=not distributed.is_main()))
        environment.reset_peak_memory()
        reused = {"model": target.run.name} if target.run else {}
        new_row = lifecycle.new_row(config, target.name, _identity(target), target.yaml, reused=reused, say=display.say)
        with new_row as (directory, record), lifecycle.ending(directory, record, display):
            lifecycle.announce_start(config, directory)
            _carry_out(target, directory, record, display)
        if distributed.is_main():
            print_table([directory.path], Console())
            print(f"\nThe row lies in {directory.path}")
    return directory.path


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
    suite = _prepare(target, display)
    questions = _questions(suite, display)
    if target.run:
        evaluated = _of_run(target, suite, questions, directory, display)
    else:
        evaluated = _of_model(target, suite, questions, display)
    with directory.writing():
        stored.save(evaluated, directory.path)
    said = suite.judge.report() if suite.judge else {}
    lifecycle.finish(
        directory,
        record,
        metrics=evaluated.metrics,
        unanswered=evaluated.unanswered,
        reports={f"judge/{name}": value for name, value in said.items()},
        counts=suite.data.counts(),
        ended=None,
        reused=record.reused,
        cost=lifecycle.spent(display.seconds),
    )


def _prepare(target: Target, display: Display) -> Suite:
    config = target.config
    torch.use_deterministic_algorithms(True, warn_only=True)
    seeds = Seeds(config.seed)
    with display.stage("data"):
        data = config.data.build(seeds=seeds.child("data")) if target.asks_prompts else NoPrompts()
        refuse_judge(config, data)
    say_notes(data, display)
    policy = load_model(config, data, seeds, display)
    return Suite(
        policy=policy,
        data=data,
        evaluations=[chosen.build() for chosen in config.evaluations],
        settings=config.eval,
        seeds=seeds.child("evaluation"),
        judge=build_judge(config, policy, data, seeds, display),
    )


def _questions(suite: Suite, display: Display) -> Sequence[Prompt]:
    held_out = suite.data.prompts(Split.EVALUATION)
    return (
        evaluation_prompts(fit_window(suite.policy, held_out, "evaluation", display), suite.settings)
        if held_out
        else ()
    )


def _of_model(target: Target, suite: Suite, questions: Sequence[Prompt], display: Display) -> Evaluated:
    """It is its own reference: nothing is known of where it started."""
    suite.policy.freeze_reference()
    with display.stage("evaluate"):
        return suite.evaluate(Path(target.name), questions, baseline=None)


def _of_run(
    target: Target, suite: Suite, questions: Sequence[Prompt], directory: RunDirectory, display: Display
) -> Evaluated:
    """The SFT model first, which is the reference and the baseline, then the policy."""
    assert target.run is not None, "of a run"
    config, policy = target.config, suite.policy
    started = target.run if config.imitates else target.run / BASELINE
    start, end = weights(started), weights(target.run)
    policy.load(start)
    policy.freeze_reference()
    if needs_reward(config):
        seeds = Seeds(config.seed).child("reward")
        reward: RewardSource = config.reward.build(policy=policy, data=suite.data, seeds=seeds)
        if isinstance(reward, FittableRewardSource) and reward.needs_rankings(config.reward.config):
            reward.load(target.run / "reward")
        suite = dataclasses.replace(suite, reward=reward)
    known = [prompt for split in Split for prompt in suite.data.prompts(split)]
    annotator = target.identity.annotator if target.identity else None
    _, held_out = stored.rankings(target.run, known, annotator=annotator)
    suite = dataclasses.replace(suite, held_out=held_out)
    policy.load(start)
    with display.stage("evaluate sft"):
        baseline = suite.evaluate(start, questions, baseline=None)
    if config.imitates:
        return baseline
    home = directory.baseline()
    with directory.writing():
        stored.save(baseline, home.path)
    lifecycle.finish_baseline(
        config,
        home,
        metrics=baseline.metrics,
        unanswered=baseline.unanswered,
        counts=suite.data.counts(),
        seconds=display.seconds,
        annotator=bool(target.identity and target.identity.annotator),
        reward=suite.reward is not None,
    )
    if suite.reward and (n := frontiers.samples(config.eval, policy)) and questions:
        with display.stage("frontier") as line:
            asked, temperature = frontiers.chosen(questions, config.eval, suite.seeds), config.eval.temperature
            frontier = frontiers.sample(
                policy, asked, n=n, temperature=temperature, data=suite.data, reward=suite.reward, seeds=suite.seeds
            )
            line.text = str(frontier)
        directory.write_frontier(frontier.as_json())
        suite = dataclasses.replace(suite, frontier=frontier)
    policy.load(end)
    optimum, implicit = partial(config.algo.load().optimum, config.algo.config), config.algo.config.implicit_reward()
    suite = dataclasses.replace(suite, optimum=optimum, implicit=implicit)
    with display.stage(f"evaluate {target.name}"):
        candidates = config.algo.config.candidates
        return suite.evaluate(end, questions, baseline=baseline.generations, candidates=candidates)


def weights(folder: Path) -> Path:
    """Where a run keeps its policy."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_dir()), None)
    if found is None:
        raise UserError(f"{folder} has no {' or '.join(WEIGHTS)} folder: its weights are gone.")
    return found
