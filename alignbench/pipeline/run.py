"""One run, top to bottom: demonstrations -> SFT -> rankings -> reward model -> the algorithm -> evaluation -> a row."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from alignbench import distributed
from alignbench.app.config import RunConfig
from alignbench.app.telling import Verbosity
from alignbench.contracts import Policy, RewardSource, Tracker
from alignbench.errors import NonFiniteError, UserError
from alignbench.evaluation import stored
from alignbench.evaluation.judge import SourceJudge
from alignbench.evaluation.suite import Evaluated, Suite
from alignbench.optimizer_config import OfflineConfig
from alignbench.pipeline import added, curves, lifecycle, shared_stages
from alignbench.pipeline.along_training import AlongTraining
from alignbench.pipeline.data import set_aside
from alignbench.pipeline.data.agreement import Agreement, agreement
from alignbench.pipeline.display import Display, closing_figures
from alignbench.pipeline.experience import Reference, labelled_pairs
from alignbench.pipeline.lifecycle import Begun
from alignbench.pipeline.memory import refuse_over_limit
from alignbench.pipeline.preparation import (
    Data,
    Prompts,
    asks_annotator,
    build_judge,
    labels_to_learn,
    load_model,
    measures_nothing,
    needs_rankings,
    needs_reward,
    read_data,
    read_prompts,
    refuse_mixture,
    refuse_unmeasured,
)
from alignbench.pipeline.shared_stages import Scorer
from alignbench.pipeline.stages import Aligned, Rankings, align
from alignbench.pipeline.training import Point, Trained
from alignbench.pipeline.workbench import Workbench, saved, workbench
from alignbench.records import Labelled, Metric, PreferencePair
from alignbench.results.disk import environment
from alignbench.results.disk.directory import LAST_GOOD, RunDirectory
from alignbench.results.shown.render import print_table
from alignbench.scoring import AnnotatorRanks
from alignbench.seeds import Seeds
from alignbench.selection import digest

COUNTED = ("updates", "optimizer_steps", "samples", "tokens")
"""What a run's record reports of the algorithm's training."""


@dataclass(frozen=True)
class Outcome:
    """What a run measured, for its record. `ranked`: whether somebody ranked responses."""

    metrics: Mapping[str, Metric]
    unanswered: Mapping[str, int]
    reports: Mapping[str, float]
    counts: Mapping[str, int]
    ended: str | None
    tokens_per_second: float | None
    ranked: bool


def run(
    config: RunConfig, *, again: Path | None = None, verbosity: Verbosity = Verbosity.NORMAL, table: bool = True
) -> Path:
    """Carries out one run, or what is left of it, prints its table (unless another is to hold it) and returns its directory."""
    with distributed.joined(config.device):
        display = Display(Console(stderr=True, highlight=False, quiet=not distributed.is_main()), verbosity)
        environment.reset_peak_memory()
        with lifecycle.begun(
            config, annotator=needs_rankings(config), reward=needs_reward(config), again=again, say=display.say
        ) as begun:
            directory = begun.directory
            if begun.finished:  # a sweep is picked up: it still wants to hear of this run
                display.say(
                    f"{directory.path} is finished, with these settings and this code; resume=never trains it anew"
                )
                lifecycle.announce_start(config, directory)
                lifecycle.announce(directory, begun.record)
            else:
                _carry_out(config, begun, display)
        if table and distributed.is_main():
            print_table([directory.path], Console())
            print(f"\nThe run lies in {directory.path}")
    return directory.path


def _carry_out(config: RunConfig, begun: Begun, display: Display) -> None:
    directory, record = begun.directory, begun.record
    if begun.resumed:
        display.say(f"going on with {directory.path}")
    with lifecycle.ending(directory, record, display):
        lifecycle.announce_start(config, directory)
        with curves.tracked(config, directory) as tracker:
            outcome = pipeline(config, directory, display, tracker)
        if not outcome.metrics:
            raise UserError(measures_nothing(config))
        if not outcome.ranked:
            record = dataclasses.replace(record, identity=dataclasses.replace(record.identity, annotator=None))
        lifecycle.finish(
            directory,
            record,
            metrics=outcome.metrics,
            unanswered=outcome.unanswered,
            reports=outcome.reports,
            counts=outcome.counts,
            ended=outcome.ended,
            reused=display.reused,
            cost=lifecycle.spent(display.seconds, outcome.tokens_per_second),
        )


def pipeline(config: RunConfig, directory: RunDirectory, display: Display, tracker: Tracker) -> Outcome:
    """The three steps of InstructGPT (Ouyang et al., arXiv 2203.02155), and what they did to the model."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    seeds = Seeds(config.seed)
    data = read_data(config, seeds, display)
    added.refuse_unserved(config, data.source, ranked=data.annotator is not None, scored=needs_reward(config))
    refuse_over_limit(config, data.source.tokenizer)
    policy = load_model(config, data.source, seeds, display)
    prompts = read_prompts(config, data, policy, display)
    evaluations = [chosen.build() for chosen in config.evaluations]
    refuse_unmeasured(config, evaluations, data.source, policy)
    refuse_mixture(config, policy)

    with keeping_last_good(policy, directory):
        bench = workbench(config, directory, display, tracker, policy.device)

        # 1. Supervised fine-tuning. A model without pretraining first learns what a real base model brings along.
        sft = shared_stages.sft(bench, config=config, data=data.source, policy=policy)
        policy.freeze_reference()
        home = directory if config.imitates else directory.baseline()
        start = saved(policy, home)

        # 2. Rankings of the SFT model's responses (or recorded ones), and a reward source that has learnt from them.
        rankings = shared_stages.rankings(
            bench, config=config, annotator=data.annotator, policy=policy, prompts=prompts, sft_key=sft.key
        )
        lost = set_aside.of_rankings(policy, rankings)
        display.say_all(set_aside.lines(lost, policy))
        counts = {**data.source.counts(), **set_aside.for_record(lost)}
        agreed = agreement([*rankings.train, *rankings.held_out]) if rankings else None
        display.say_all([agreed.line()] if agreed else [])
        reward = shared_stages.reward(
            bench, config=config, data=data, policy=policy, prompts=prompts, rankings=rankings, sft_key=sft.key
        )
        judge = build_judge(config, policy, data.source, seeds, display)

        # 3. The SFT model's own row: the baseline of every comparison.
        policy.load(start)
        view = added.later_view(data.source, policy, prompts.train, rankings, reward.source if reward else None)
        looked = added.after_reward(bench, config, view, before=digest(sft.key, reward.key if reward else ""))
        sft = dataclasses.replace(sft, key=digest(sft.key, looked.key) if looked.key else sft.key)
        suite = Suite(
            policy=policy,
            data=data.source,
            evaluations=evaluations,
            settings=config.eval,
            seeds=seeds.child("evaluation"),
            reward=reward.source if reward else None,
            judge=judge,
            held_out=rankings.held_out if rankings else (),
        )
        baseline = shared_stages.evaluated_sft(
            bench,
            config=config,
            suite=suite,
            questions=prompts.questions,
            sft=sft,
            reward=reward,
            ranked=rankings is not None,
            saved=start,
            home=home,
        )
        figures = {**sft.figures, **looked.figures}
        if config.imitates:
            figures |= added.after_algorithm(bench, config, view).figures
            bench.curves.evaluated(baseline.metrics, baseline.generations, sft.trained.updates)
            bench.curves.ended(sft.trained.updates, speed(sft.trained))
            figures |= reported(reward, judge, rankings, agreed)
            return outcome(counts, baseline, sft.trained, figures, ranked=rankings is not None)

        frontier = shared_stages.frontier(bench, suite=suite, questions=prompts.questions, sft=sft, reward=reward)

        # 4. The algorithm, from the SFT model.
        optimum, implicit = (
            partial(config.algo.load().optimum, config.algo.config),
            config.algo.config.implicit_reward(),
        )
        suite = dataclasses.replace(suite, optimum=optimum, implicit=implicit)
        aligned = run_algorithm(
            bench,
            config=config,
            data=data,
            policy=policy,
            prompts=prompts,
            rankings=rankings,
            labels=labels_to_learn(config, data.source, prompts),
            reward=suite.reward,
            reference=shared_stages.reference(bench, sft.key),
            point=AlongTraining(bench, suite, prompts.questions, baseline.generations, seeds=seeds.child("points")),
        )

        # 5. What it did to the model: the saved checkpoint, on the same prompts, against the SFT model.
        end = saved(policy, directory)
        policy.load(end)
        figures |= added.after_algorithm(bench, config, view).figures
        candidates = config.algo.config.candidates
        suite = dataclasses.replace(suite, frontier=frontier)
        with display.stage(f"evaluate {config.algo.component.name}"):
            evaluated = suite.evaluate(end, prompts.questions, baseline=baseline.generations, candidates=candidates)
            stored.save(evaluated, directory.path)
        bench.curves.evaluated(evaluated.metrics, evaluated.generations, aligned.trained.updates)
        bench.curves.ended(aligned.trained.updates, speed(aligned.trained))
        return outcome(
            {**counts, **set_aside.for_record(aligned.counts)},
            evaluated,
            aligned.trained,
            reported(reward, judge, rankings, agreed) | counted(config, aligned) | figures,
            ranked=rankings is not None,
        )


def run_algorithm(
    bench: Workbench,
    *,
    config: RunConfig,
    data: Data,
    policy: Policy,
    prompts: Prompts,
    rankings: Rankings | None,
    labels: Sequence[Labelled],
    reward: RewardSource | None,
    reference: Reference,
    point: Point,
) -> Aligned:
    """It learns from scores or ranks of what it samples, from pairs of the rankings, or from labels."""
    name, algo = config.algo.component.name, config.algo.config
    with bench.display.stage(name) as note:
        pairs: list[PreferencePair] = []
        if isinstance(algo, OfflineConfig) and rankings and data.annotator:
            pairs = labelled_pairs(rankings.train, data.annotator, algo.pairs)
        if asks_annotator(config):
            seeds = bench.seeds.child("rounds")
            anew = lambda batch: config.annotator.build(data=data.source, seeds=seeds.child(batch))  # noqa: E731
            reward = AnnotatorRanks(anew, algo.samples_per_prompt)
        aligned = align(
            config.algo,
            policy,
            prompts.train,
            reward=reward,
            pairs=pairs,
            labels=labels,
            seeds=bench.seeds.child(name),
            step=bench.curves.step,
            budget=config.budget,
            checkpoints=bench.checkpoints,
            reference=reference,
            point=point,
        )
        trained = aligned.trained
        note.text = closing_figures(trained.metrics) + (f"; stopped: {trained.stopped}" if trained.stopped else "")
    bench.display.took_at_least(name, trained.seconds)
    bench.display.say_all(set_aside.lines(aligned.counts, policy))
    return aligned


def outcome(
    counts: Mapping[str, int], evaluated: Evaluated, trained: Trained, reports: Mapping[str, float], *, ranked: bool
) -> Outcome:
    return Outcome(evaluated.metrics, evaluated.unanswered, reports, counts, trained.stopped, speed(trained), ranked)


def speed(trained: Trained) -> float | None:
    """Response tokens of the training stage in a second, sampling included; None where nothing was trained, as by best-of-n."""
    return trained.tokens / max(trained.seconds, 1e-9) if trained.tokens else None


def counted(config: RunConfig, aligned: Aligned) -> dict[str, float]:
    """What the algorithm's training came to."""
    figures = {what: getattr(aligned.trained, what) for what in COUNTED} | dict(aligned.counts)
    return {f"{config.algo.component.name}/{what}": float(value) for what, value in figures.items()}


def reported(
    reward: Scorer | None, judge: SourceJudge | None, rankings: Rankings | None, agreed: Agreement | None
) -> dict[str, float]:
    """What the fit of the reward source said, what the sources say of their own work, and how far people agree."""
    fit = {**reward.fit, **reward.source.report()} if reward else {}
    said = {"reward": fit, "judge": judge.report() if judge else {}, "annotator": rankings.report if rankings else {}}
    own = {f"{slot}/{name}": value for slot, figures in said.items() for name, value in figures.items()}
    return own | dict(agreed.figures() if agreed else {})


@contextlib.contextmanager
def keeping_last_good(policy: Policy, directory: RunDirectory) -> Iterator[None]:
    """Keeps the policy as the last good update left it when a reward, a loss or a gradient is not finite."""
    try:
        yield
    except NonFiniteError as error:
        if not distributed.is_main():
            raise
        with directory.writing(LAST_GOOD):
            path = policy.save(directory.path / LAST_GOOD)
        raise NonFiniteError(f"{error} The weights of the last good update are in {path}.") from error
