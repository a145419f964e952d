"""The stages that runs share: made once under the name of all that went into them, then read back by whoever needs them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from alignbench.app.config import BudgetSettings, RunConfig
from alignbench.contracts import Annotator, DataSource, FittableRewardSource, Policy, RewardSource
from alignbench.evaluation import frontier as frontiers
from alignbench.evaluation import stored
from alignbench.evaluation.frontier import Frontier
from alignbench.evaluation.suite import Evaluated, Suite
from alignbench.pipeline import added, lifecycle
from alignbench.pipeline.display import closing_figures
from alignbench.pipeline.experience import Reference, ReferenceScores, ask_reference
from alignbench.pipeline.preparation import Data, Prompts, needs_reward
from alignbench.pipeline.stages import Rankings, fit_reward, gather_rankings, imitate
from alignbench.pipeline.training import NO_BUDGET, Trained
from alignbench.pipeline.workbench import Made, Note, Workbench
from alignbench.records import Demonstration, Prompt, Ranking, Sequences
from alignbench.results.disk.directory import RunDirectory
from alignbench.selection import Selected, digest
from alignbench.store import keys
from alignbench.store.artifacts import Write

WEIGHTS, RANKINGS, REWARD, REFERENCE = "policy", "rankings.json", "reward", "reference.safetensors"


@dataclass(frozen=True)
class Start:
    """The SFT model, which the policy then is. `key` stands for it in the names of all that comes of it."""

    key: str
    trained: Trained
    figures: Mapping[str, float] = field(default_factory=dict)
    """Of the user's own stages before it."""


@dataclass(frozen=True)
class Scorer:
    """A reward source that is ready to score, the name of its state, and the figures of its fit where it was fitted."""

    source: RewardSource
    key: str
    fit: Mapping[str, float]


def sft(bench: Workbench, *, config: RunConfig, data: DataSource, policy: Policy) -> Start:
    """The policy after the user's own stages, pretraining (a model that knows nothing learns its lessons) and supervised fine-tuning."""
    before = added.before_sft(bench, config=config, data=data, policy=policy)
    demonstrations = before.demonstrations
    budget = config.budget if config.imitates else NO_BUDGET
    lessons = () if policy.pretrained else data.lessons()
    key = keys.of_sft(config, data, policy, demonstrations, stages=before.key)

    def make() -> Made:
        done, trained = Trained(), Trained()
        if lessons and bench.checkpoints.restore("sft") is None:
            done = _imitated(bench, "pretrain", config.pretrain, lessons, policy, NO_BUDGET)
        if demonstrations:
            done = trained = _imitated(bench, "sft", config.start, demonstrations, policy, budget)
        return Made(
            write=lambda folder: policy.save(folder / WEIGHTS),
            text=closing_figures(done.metrics),
            figures=dataclasses.asdict(trained),
        )

    def load(folder: Path, note: Note) -> Trained:
        (weights,) = (folder / WEIGHTS).iterdir()
        policy.load(weights)
        return Trained(**note.figures)

    trained = bench.once("sft", key, stages=("pretrain", "sft"), make=make, load=load)
    return Start(key, trained, before.figures)


def _imitated(
    bench: Workbench,
    stage: str,
    chosen: Selected,
    demonstrations: Sequence[Demonstration],
    policy: Policy,
    budget: BudgetSettings,
) -> Trained:
    with bench.display.stage(stage) as line:
        done = imitate(
            stage,
            chosen,
            demonstrations,
            policy,
            seeds=bench.seeds.child(stage),
            step=bench.curves.step,
            budget=budget,
            checkpoints=bench.checkpoints,
        )
        line.text = closing_figures(done.metrics)
    bench.display.took_at_least(stage, done.seconds)
    return done


def rankings(
    bench: Workbench,
    *,
    config: RunConfig,
    annotator: Annotator | None,
    policy: Policy,
    prompts: Prompts,
    sft_key: str,
) -> Rankings | None:
    """Rankings of the SFT model's responses, written into the run's directory too; None where nobody ranks. Recorded ones are
    read from their source each time: nothing is sampled."""
    if annotator is None:
        return None

    def gather() -> Rankings:
        held_out = frozenset(prompt.id for prompt in prompts.held_out)
        seeds = bench.seeds.child("rankings")
        found = gather_rankings(config.rankings, annotator, policy, prompts.train, held_out, seeds=seeds)
        return dataclasses.replace(found, report=annotator.report())

    def make() -> Made:
        with bench.display.stage("rankings") as line:
            found = gather()
            line.text = f"{len(found.train)} to learn from, {len(found.held_out)} held out"
        parts = {part: [_ranking(r) for r in getattr(found, part)] for part in ("train", "held_out")}
        write: Write = lambda folder: (folder / RANKINGS).write_bytes(json.dumps(parts).encode())  # noqa: E731
        return Made(write, line.text, dict(found.report))

    def load(folder: Path, note: Note) -> Rankings:
        by_id = {prompt.id: prompt for prompt in prompts.train}
        parts = json.loads((folder / RANKINGS).read_bytes())
        train, held_out = (tuple(_as_ranking(r, by_id) for r in parts[part]) for part in ("train", "held_out"))
        return Rankings(train, held_out, report=note.figures)

    if annotator.samples_responses:
        key = keys.of_ranked(config, prompts.train, sft=sft_key, annotator=annotator.fingerprint())
        found = bench.once("rankings", key, stages=("rankings",), make=make, load=load)
    else:
        found = gather()
    bench.directory.write_rankings(found.train, found.held_out, annotator=config.annotator.label)
    return found


def _ranking(ranking: Ranking) -> list[Any]:
    return [ranking.prompt.id, ranking.responses, ranking.ranks, ranking.finished]


def _as_ranking(saved: Sequence[Any], prompts: Mapping[str, Prompt]) -> Ranking:
    prompt, responses, ranks, finished = saved
    return Ranking(prompts[prompt], tuple(responses), tuple(ranks), tuple(finished))


def reward(
    bench: Workbench,
    *,
    config: RunConfig,
    data: Data,
    policy: Policy,
    prompts: Prompts,
    rankings: Rankings | None,
    sft_key: str,
) -> Scorer | None:
    """The reward source; fitted to the rankings where it learns from them, and then saved in the run's directory too. None where
    the algorithm asks for no scores."""
    if not needs_reward(config):
        return None
    source: RewardSource = config.reward.build(policy=policy, data=data.source, seeds=bench.seeds.child("reward"))
    own_key, annotator = keys.of_source(config.reward, source.fingerprint()), data.annotator
    if not isinstance(source, FittableRewardSource) or rankings is None or annotator is None:
        return Scorer(source, own_key, {})
    key = keys.of_reward(config, rankings.train, rankings.held_out, prompts.train, sft=sft_key, source=own_key)

    def make() -> Made:
        with bench.display.stage("reward") as line:
            report = fit_reward(
                source,
                rankings,
                policy,
                prompts.train,
                annotator,
                seeds=bench.seeds.child("reward"),
                step=bench.curves.step,
                checkpoints=bench.checkpoints,
            )
            line.text = report.summary
        return Made(lambda folder: source.save(folder / REWARD), report.summary, dict(report.metrics))

    def load(folder: Path, note: Note) -> Mapping[str, float]:
        source.load(folder / REWARD)
        with bench.directory.writing(REWARD):
            bench.directory.copy(folder / REWARD, REWARD)
        return note.figures

    return Scorer(source, key, bench.once("reward", key, stages=("reward",), make=make, load=load))


class _IncompleteError(Exception):
    """An evaluation that lacks answers."""

    def __init__(self, found: Evaluated) -> None:
        super().__init__()
        self.found = found


def evaluated_sft(
    bench: Workbench,
    *,
    config: RunConfig,
    suite: Suite,
    questions: Sequence[Prompt],
    sft: Start,
    reward: Scorer | None,
    ranked: bool,
    saved: Path,
    home: RunDirectory,
) -> Evaluated:
    """The row of the SFT model in `home`, measured as it is in `saved`: the baseline of every comparison. `ranked`: whether
    somebody ranks responses in this run.

    What a judge did not answer is asked again by the next run: an evaluation that lacks answers is not shared."""
    judge = keys.of_source(config.judge, suite.judge.fingerprint()) if config.judge and suite.judge else ""
    key = keys.of_evaluation(
        config,
        suite.evaluations,
        questions,
        suite.held_out,
        sft=sft.key,
        reward=reward.key if reward else "",
        judge=judge,
    )

    def make() -> Made:
        with bench.display.stage("evaluate sft"):
            found = suite.evaluate(saved, questions, baseline=None)
        if not found.whole:
            raise _IncompleteError(found)
        return Made(lambda folder: stored.save(found, folder))

    def load(folder: Path, note: Note) -> Evaluated:
        for name in stored.FILES:
            home.copy(folder / name, name)
        return stored.load(folder, questions, suite.settings.samples, suite.evaluations)

    try:
        found = bench.once("evaluation", key, stages=("evaluate sft",), make=make, load=load)
    except _IncompleteError as incomplete:
        found = incomplete.found
        stored.save(found, home.path)
    if not config.imitates:  # else it is the run's own row
        lifecycle.finish_baseline(
            config,
            home,
            metrics=found.metrics,
            unanswered=found.unanswered,
            counts=suite.data.counts(),
            seconds=bench.display.seconds,
            annotator=ranked,
            reward=reward is not None,
        )
    return found


def frontier(
    bench: Workbench, *, suite: Suite, questions: Sequence[Prompt], sft: Start, reward: Scorer | None
) -> Frontier | None:
    """The best that any policy could do with this reward from this SFT model; its curve is written into the run's directory."""
    n = frontiers.samples(suite.settings, suite.policy)
    if reward is None or not n:
        return None
    prompts = frontiers.chosen(questions, suite.settings, suite.seeds)
    temperature = suite.settings.temperature
    key = keys.of_frontier(prompts, n=n, temperature=temperature, sft=sft.key, reward=reward.key)

    def make() -> Made:
        with bench.display.stage("frontier") as line:
            found = frontiers.sample(
                suite.policy,
                prompts,
                n=n,
                temperature=temperature,
                data=suite.data,
                reward=reward.source,
                seeds=suite.seeds,
            )
            line.text = str(found)
        return Made(found.save, line.text)

    def load(folder: Path, note: Note) -> Frontier:
        return Frontier.load(folder, prompts)

    found = bench.once("frontier", key, stages=("frontier",), make=make, load=load)
    bench.directory.write_frontier(found.as_json())
    return found


def reference(bench: Workbench, sft_key: str) -> Reference:
    """`experience.ask_reference` that remembers: under the SFT model and the very tokens that were read."""

    def ask(policy: Policy, sequences: Sequences) -> ReferenceScores:
        def make() -> Write:
            found = ask_reference(policy, sequences)
            seconds = torch.tensor(found.seconds, dtype=torch.float64)
            return lambda folder: save_file({"logprobs": found.logprobs.cpu(), "seconds": seconds}, folder / REFERENCE)

        def load(folder: Path, made_by: str) -> ReferenceScores:
            found = load_file(folder / REFERENCE)
            return ReferenceScores(found["logprobs"].to(policy.device), float(found["seconds"]))

        return bench.store.once("reference", digest(sft_key, keys.of_tokens(sequences)), make, load)

    return ask
