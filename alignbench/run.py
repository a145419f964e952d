"""One run, top to bottom: demonstrations -> SFT -> rankings -> reward model -> the algorithm -> evaluation -> a row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf
from rich.console import Console

from alignbench import lifecycle
from alignbench.config import RunConfig
from alignbench.contracts import Annotator, DataSource, Evaluation, FittableRewardSource, Policy, RewardSource, Tracker
from alignbench.errors import NonFiniteError
from alignbench.evaluation.suite import Evaluated, evaluate, evaluation_prompts
from alignbench.experience import labelled_pairs
from alignbench.progress import Display, closing_figures
from alignbench.records import Consumes, Metric, Split
from alignbench.results import environment
from alignbench.results.directory import RunDirectory
from alignbench.results.record import Cost
from alignbench.results.render import print_table
from alignbench.seeds import Seeds
from alignbench.stages import (
    align,
    build,
    fit_reward,
    fit_window,
    gather_rankings,
    imitate,
    needs_rankings,
    needs_reward,
    pick_device,
    refuse_impossible,
)
from alignbench.training import Trained


@dataclass(frozen=True)
class Outcome:
    """What a run measured, for its record."""

    metrics: Mapping[str, Metric]
    reports: Mapping[str, float]
    counts: Mapping[str, int]
    tokens_per_second: float


def run(config: RunConfig) -> Path:
    """Carries out one run, prints its table and returns its directory."""
    display = Display()
    environment.reset_peak_memory()
    directory, record = lifecycle.start(config, annotator=needs_rankings(config), reward=needs_reward(config))
    with lifecycle.ending(directory, record, display):
        lifecycle.announce_start(config, directory)
        outcome = pipeline(config, directory, display)
        lifecycle.finish(
            directory,
            record,
            metrics=outcome.metrics,
            reports=outcome.reports,
            counts=outcome.counts,
            cost=Cost(dict(display.seconds), outcome.tokens_per_second, environment.peak_memory_bytes()),
        )
    print_table([directory.path], Console())
    print(f"\nThe run lies in {directory.path}")
    return directory.path


def pipeline(config: RunConfig, directory: RunDirectory, display: Display) -> Outcome:
    """The stages in order."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    seeds, device = Seeds(config.seed), pick_device(config.device)
    consumes: Consumes = config.algo.config.consumes
    reports: dict[str, float] = {}

    # 0. Data, and whether it gives what the algorithm consumes: all of that before a model is loaded.
    with display.stage("data") as note:
        data: DataSource = build(config.data, seeds=seeds.child("data"))
        annotator: Annotator | None = None
        if needs_rankings(config):
            annotator = build(config.annotator, data=data, seeds=seeds.child("annotator"))
        refuse_impossible(config, data, annotator)
        note.text = ", ".join(f"{count} {reason}" for reason, count in data.counts().items() if count)
    tracker: Tracker = build(
        config.tracker,
        directory=directory.path,
        run_name=directory.run_id,
        settings=OmegaConf.to_container(OmegaConf.create(config.yaml)),
    )
    step = lifecycle.steps(directory, tracker, display)
    with display.stage("model") as note:
        policy: Policy = build(config.model, tokenizer=data.tokenizer(), device=device, seeds=seeds.child("model"))
        note.text = f"{sum(p.numel() for p in policy.trainable()):,} trainable parameters on {device}"
    prompts = fit_window(policy, data.prompts(Split.TRAIN), "training", display)
    held_out = fit_window(policy, data.prompts(Split.EVALUATION), "evaluation", display)
    questions = evaluation_prompts(held_out, config.eval)
    evaluations: list[Evaluation] = [build(chosen) for chosen in config.evaluations]

    with closing_tracker(tracker), keeping_last_good(policy, directory):
        # 1. Supervised fine-tuning. A model without pretraining first learns what a real base model brings along.
        if not policy.pretrained and data.lessons():
            with display.stage("pretrain") as note:
                seeds_here = seeds.child("pretrain")
                done = imitate("pretrain", config.pretrain, data.lessons(), policy, seeds=seeds_here, step=step)
                note.text = closing_figures(done.metrics)
        imitates = consumes is Consumes.DEMONSTRATIONS
        start = config.algo if imitates else config.sft
        if data.demonstrations():
            with display.stage("sft") as note:
                done = imitate("sft", start, data.demonstrations(), policy, seeds=seeds.child("sft"), step=step)
                note.text = closing_figures(done.metrics)
        policy.freeze_reference()
        home = directory if imitates else directory.baseline()
        with home.writing():
            checkpoint = policy.save(home.path)

        # 2. Rankings of the SFT model's responses (or recorded ones), and a reward source that has learnt from them.
        rankings = None
        if annotator is not None:
            with display.stage("rankings") as note:
                ids = frozenset(prompt.id for prompt in held_out)
                rankings = gather_rankings(
                    config.rankings, annotator, policy, prompts, ids, seeds=seeds.child("rankings")
                )
                directory.write_rankings(rankings.train, rankings.held_out, annotator=config.annotator.label)
                note.text = f"{len(rankings.train)} to learn from, {len(rankings.held_out)} held out"
        reward: RewardSource | None = None
        if needs_reward(config):
            reward = build(config.reward, policy=policy, data=data, seeds=seeds.child("reward"))
        if isinstance(reward, FittableRewardSource) and rankings is not None and annotator is not None:
            with display.stage("reward") as note:
                fitted = fit_reward(
                    reward, rankings, policy, prompts, annotator, seeds=seeds.child("reward"), step=step
                )
                with directory.writing("reward"):
                    reward.save(directory.path / "reward")
                reports |= {f"reward/{name}": value for name, value in fitted.metrics.items()}
                note.text = fitted.summary

        # 3. The SFT model's own row: the baseline of every comparison.
        policy.load(checkpoint)
        with display.stage("evaluate sft"):
            baseline = evaluate(
                policy, checkpoint, questions,
                evaluations=evaluations, settings=config.eval, data=data, reward=reward, baseline=None,
                seeds=seeds.child("evaluation"),
            )  # fmt: skip
            write_evaluation(home, baseline)
        if imitates:
            return Outcome(baseline.metrics, reports, data.counts(), speed(done, display.seconds["sft"]))
        lifecycle.finish_baseline(
            config, home,
            metrics=baseline.metrics, counts=data.counts(), seconds=display.seconds,
            annotator=annotator is not None, reward=reward is not None,
        )  # fmt: skip

        # 4. The algorithm, from the SFT model.
        name = config.algo.component.name
        with display.stage(name) as note:
            pairs = (
                labelled_pairs(rankings.train, annotator, config.algo.config.pairs)
                if consumes is Consumes.PREFERENCES and rankings and annotator
                else []
            )
            aligned = align(
                config.algo, policy, prompts, reward=reward, pairs=pairs, seeds=seeds.child(name), step=step
            )
            done = aligned.trained
            note.text = closing_figures(done.metrics) + (f"; stopped: {done.stopped}" if done.stopped else "")
        reports |= {f"{name}/updates": float(done.updates), f"{name}/optimizer_steps": float(done.optimizer_steps)}
        reports |= {f"{name}/{reason}": float(count) for reason, count in aligned.counts.items()}

        # 5. What it did to the model: the saved checkpoint, on the same prompts, against the SFT model.
        with directory.writing():
            checkpoint = policy.save(directory.path)
        policy.load(checkpoint)
        with display.stage(f"evaluate {name}"):
            evaluated = evaluate(
                policy, checkpoint, questions,
                evaluations=evaluations, settings=config.eval, data=data, reward=reward, baseline=baseline.generations,
                seeds=seeds.child("evaluation"),
                candidates=config.algo.config.candidates,
                optimum=partial(config.algo.component.load().optimum, config.algo.config),
            )  # fmt: skip
            write_evaluation(directory, evaluated)
        return Outcome(evaluated.metrics, reports, data.counts(), speed(done, display.seconds[name]))


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
        with directory.writing("last_good"):
            path = policy.save(directory.path / "last_good")
        raise NonFiniteError(f"{error} The weights of the last good update are in {path}.") from error


def write_evaluation(directory: RunDirectory, evaluated: Evaluated) -> None:
    """The files that every metric can be computed from again."""
    directory.write_generations([*evaluated.generations, *evaluated.extra])
    directory.write_examples(evaluated.scores)


def speed(done: Trained, seconds: float) -> float:
    """Response tokens per second of a training stage, sampling included."""
    return done.tokens / max(seconds, 1e-9)
