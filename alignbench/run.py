"""One run, top to bottom: demonstrations -> SFT -> rankings -> reward model -> the algorithm -> evaluation -> a row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from alignbench import curves, distributed, keys, lifecycle, shared
from alignbench.config import RunConfig
from alignbench.contracts import (
    Annotator,
    DataSource,
    Evaluation,
    FittableRewardSource,
    Policy,
    RewardSource,
    Tracker,
)
from alignbench.errors import NonFiniteError
from alignbench.evaluation import stored
from alignbench.evaluation.judge import SourceJudge
from alignbench.evaluation.points import AlongTraining
from alignbench.evaluation.suite import evaluate, evaluation_prompts
from alignbench.experience import labelled_pairs
from alignbench.lifecycle import Begun
from alignbench.progress import Display, closing_figures
from alignbench.records import Consumes, Metric, Split
from alignbench.results import environment
from alignbench.results.directory import CHECKPOINTS, RunDirectory
from alignbench.results.render import print_table
from alignbench.seeds import Seeds
from alignbench.stages import (
    align,
    build,
    fit_window,
    needs_rankings,
    needs_reward,
    pick_device,
    refuse_impossible,
)
from alignbench.subject import Judge
from alignbench.training import Trained

COUNTED = ("updates", "optimizer_steps", "samples", "tokens")
"""What a run's record reports of the algorithm's training."""


@dataclass(frozen=True)
class Outcome:
    """What a run measured, for its record."""

    metrics: Mapping[str, Metric]
    reports: Mapping[str, float]
    counts: Mapping[str, int]
    ended: str | None
    tokens_per_second: float


def run(config: RunConfig, *, again: Path | None = None) -> Path:
    """Carries out one run, or what is left of it, prints its table and returns its directory."""
    with distributed.joined(config.device):
        display = Display(Console(stderr=True, highlight=False, quiet=not distributed.is_main()))
        environment.reset_peak_memory()
        with lifecycle.begun(
            config, annotator=needs_rankings(config), reward=needs_reward(config), again=again
        ) as begun:
            directory = begun.directory
            if begun.finished:  # a sweep is picked up: it still wants to hear of this run
                lifecycle.announce_start(config, directory)
                lifecycle.announce(directory, begun.record)
            else:
                _carry_out(config, begun, display)
        if distributed.is_main():
            print_table([directory.path], Console())
            print(f"\nThe run lies in {directory.path}")
    return directory.path


def _carry_out(config: RunConfig, begun: Begun, display: Display) -> None:
    directory, record = begun.directory, begun.record
    if begun.resumed:
        display.say(f"going on with {directory.path}")
    with lifecycle.ending(directory, record, display):
        lifecycle.announce_start(config, directory)
        outcome = pipeline(config, directory, display)
        lifecycle.finish(
            directory,
            record,
            metrics=outcome.metrics,
            reports=outcome.reports,
            counts=outcome.counts,
            ended=outcome.ended,
            reused=display.reused,
            cost=lifecycle.spent(display.seconds, outcome.tokens_per_second),
        )


def pipeline(config: RunConfig, directory: RunDirectory, display: Display) -> Outcome:
    """The stages in order."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    seeds, device = Seeds(config.seed), pick_device(config.device)
    reports: dict[str, float] = {}

    # 0. Data, and whether it gives what the algorithm consumes: all of that before a model is loaded.
    with display.stage("data") as note:
        data: DataSource = build(config.data, seeds=seeds.child("data"))
        annotator: Annotator | None = None
        if needs_rankings(config):
            annotator = build(config.annotator, data=data, seeds=seeds.child("annotator"))
        refuse_impossible(config, data, annotator)
        note.text = ", ".join(f"{count} {reason}" for reason, count in data.counts().items() if count)
    tracker = curves.tracker(config, directory)
    with display.stage("model") as note:
        policy: Policy = build(config.model, tokenizer=data.tokenizer(), device=device, seeds=seeds.child("model"))
        note.text = f"{sum(p.numel() for p in policy.trainable()):,} trainable parameters on {device}"
    prompts = fit_window(policy, data.prompts(Split.TRAIN), "training", display)
    held_out = fit_window(policy, data.prompts(Split.EVALUATION), "evaluation", display)
    questions = evaluation_prompts(held_out, config.eval)
    evaluations: list[Evaluation] = [build(chosen) for chosen in config.evaluations]
    bench = shared.workbench(config, directory, display, tracker, device)

    with closing_tracker(tracker), keeping_last_good(policy, directory):
        # 1. Supervised fine-tuning. A model without pretraining first learns what a real base model brings along.
        sft_key = keys.of_sft(config, data, policy, device)
        done = shared.sft(bench, config, data, policy, sft_key)
        policy.freeze_reference()
        home = directory if config.imitates else directory.baseline()
        checkpoint = saved(policy, home)

        # 2. Rankings of the SFT model's responses (or recorded ones), and a reward source that has learnt from them.
        rankings = None
        if annotator is not None:
            rankings_key = keys.of_ranked(sft_key, config, prompts)
            rankings = shared.rankings(bench, config, annotator, policy, prompts, held_out, rankings_key)
            directory.write_rankings(rankings.train, rankings.held_out, annotator=config.annotator.label)
        reward: RewardSource | None = None
        reward_key = ""
        if needs_reward(config):
            reward = build(config.reward, policy=policy, data=data, seeds=seeds.child("reward"))
            reward_key = keys.of_source(config.reward, reward)
        if isinstance(reward, FittableRewardSource) and rankings is not None and annotator is not None:
            reward_key = keys.of_reward(sft_key, reward_key, config, rankings.train, rankings.held_out, prompts)
            fitted = shared.reward(bench, reward, rankings, policy, prompts, annotator, reward_key)
            reports |= {f"reward/{name}": value for name, value in fitted.metrics.items()}

        judge: Judge | None = None
        judge_key, sources = "", {"reward": reward} if reward else {}
        if config.judge:
            source = sources["judge"] = build(config.judge, policy=policy, data=data, seeds=seeds.child("judge"))
            judge = SourceJudge(config.judge.label, source, policy, display.say)
            judge_key = keys.of_source(config.judge, source)

        # 3. The SFT model's own row: the baseline of every comparison.
        policy.load(checkpoint)
        measure = partial(
            evaluate,
            policy, checkpoint, questions,
            evaluations=evaluations, settings=config.eval, data=data, reward=reward, judge=judge, baseline=None,
            seeds=seeds.child("evaluation"),
        )  # fmt: skip
        baseline = shared.evaluated_sft(
            bench, home, measure, questions, config.eval.samples, evaluations,
            keys.of_evaluation(sft_key, reward_key, judge_key, config, questions),
        )  # fmt: skip
        if config.imitates:
            trained = done or Trained()
            reports |= reported(sources)
            return Outcome(baseline.metrics, reports, data.counts(), trained.stopped, speed(trained))
        lifecycle.finish_baseline(
            config, home,
            metrics=baseline.metrics, counts=data.counts(), seconds=display.seconds,
            annotator=annotator is not None, reward=reward is not None,
        )  # fmt: skip

        # 4. The algorithm, from the SFT model.
        name = config.algo.component.name
        optimum = partial(config.algo.component.load().optimum, config.algo.config)
        along = AlongTraining(
            config.eval, directory, bench.curves, display,
            questions=questions, evaluations=dict(zip(config.eval.families, evaluations, strict=True)),
            baseline=baseline.generations,
            save=lambda: saved(policy, RunDirectory(directory.path / CHECKPOINTS)),
            measure=partial(evaluate, policy, data=data, reward=reward, seeds=seeds.child("points"), optimum=optimum),
        )  # fmt: skip
        with display.stage(name) as note:
            pairs = (
                labelled_pairs(rankings.train, annotator, config.algo.config.pairs)
                if config.algo.config.consumes is Consumes.PREFERENCES and rankings and annotator
                else []
            )
            aligned = align(
                config.algo, policy, prompts,
                reward=reward, pairs=pairs, seeds=seeds.child(name), step=bench.curves.step, budget=config.budget,
                checkpoints=bench.checkpoints, reference=shared.reference(bench, sft_key), point=along,
            )  # fmt: skip
            trained = aligned.trained
            note.text = closing_figures(trained.metrics) + (f"; stopped: {trained.stopped}" if trained.stopped else "")
        display.seconds[name] = max(display.seconds[name], trained.seconds)  # what came before a kill counts
        reports |= {f"{name}/{what}": float(getattr(trained, what)) for what in COUNTED}
        reports |= {f"{name}/{reason}": float(count) for reason, count in aligned.counts.items()}

        # 5. What it did to the model: the saved checkpoint, on the same prompts, against the SFT model.
        checkpoint = saved(policy, directory)
        policy.load(checkpoint)
        with display.stage(f"evaluate {name}"):
            evaluated = evaluate(
                policy, checkpoint, questions,
                evaluations=evaluations, settings=config.eval, data=data, reward=reward, judge=judge,
                baseline=baseline.generations,
                seeds=seeds.child("evaluation"),
                candidates=config.algo.config.candidates,
                optimum=optimum,
            )  # fmt: skip
            stored.save(evaluated, directory.path)
        reports |= reported(sources)
        return Outcome(evaluated.metrics, reports, data.counts(), trained.stopped, speed(trained))


def reported(sources: Mapping[str, RewardSource]) -> dict[str, float]:
    """What the reward sources say of their own work."""
    return {f"{slot}/{name}": value for slot, source in sources.items() for name, value in source.report().items()}


def saved(policy: Policy, directory: RunDirectory) -> Path:
    """The policy's folder in a run's directory, written by the main process and there for all."""
    with directory.writing():
        path = distributed.agreed(lambda: policy.save(directory.path))
    return path


@contextlib.contextmanager
def closing_tracker(tracker: Tracker) -> Iterator[None]:
    try:
        yield
    finally:
        tracker.finish()


@contextlib.contextmanager
def keeping_last_good(policy: Policy, directory: RunDirectory) -> Iterator[None]:
    """Keeps the policy as the last good update left it when a reward, a loss or a gradient is not finite."""
    try:
        yield
    except NonFiniteError as error:
        if not distributed.is_main():
            raise
        with directory.writing("last_good"):
            path = policy.save(directory.path / "last_good")
        raise NonFiniteError(f"{error} The weights of the last good update are in {path}.") from error


def speed(done: Trained) -> float:
    """Response tokens per second of a training stage, sampling included."""
    return done.tokens / max(done.seconds, 1e-9)
