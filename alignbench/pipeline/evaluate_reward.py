"""Carries out `alignbench evaluate-reward`: a reward source is made ready, or found in a run, and measured by rankings that it has not
learnt from."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from alignbench import distributed
from alignbench.app.reward_target import RewardTarget
from alignbench.contracts import Annotator, DataSource, FittableRewardSource, Policy, RewardSource
from alignbench.errors import UserError
from alignbench.evaluation import stored
from alignbench.evaluation.reward_models.best_of_n import draw_pool
from alignbench.evaluation.reward_models.measures import Measured, measure
from alignbench.evaluation.reward_models.sources import PolicyReward, TextsAlone
from alignbench.evaluation.suite import evaluation_prompts, reads_ordinary_text
from alignbench.pipeline import curves, lifecycle, shared_stages
from alignbench.pipeline.data import set_aside
from alignbench.pipeline.display import Display
from alignbench.pipeline.evaluate import weights
from alignbench.pipeline.preparation import (
    Data,
    fit_window,
    load_model,
    needs_rankings,
    pick_device,
    read_prompts,
    say_notes,
)
from alignbench.pipeline.stages import Rankings
from alignbench.pipeline.workbench import workbench
from alignbench.records import Prompt, Ranking, Split
from alignbench.results.disk import environment
from alignbench.results.disk.directory import BASELINE, RANKINGS, RunDirectory
from alignbench.results.disk.record import MEASURED_REWARD, Identity
from alignbench.results.shown.reward_models import print_measures
from alignbench.seeds import Seeds


@dataclass(frozen=True)
class Ready:
    """A source that can score, the policy whose tokens it reads, and the rankings that it is measured by. `held_out`: whether it may have
    learnt from others of the same kind; `sft`: whether the policy's reference is an SFT model, to sample from."""

    source: RewardSource
    policy: Policy
    rankings: Sequence[Ranking]
    held_out: bool
    sft: bool = True
    counts: Mapping[str, int] = field(default_factory=dict)
    fit: Mapping[str, float] = field(default_factory=dict)


def evaluate_reward(target: RewardTarget) -> Path:
    """Measures, prints the measures and returns the new row's directory."""
    config = target.config
    with distributed.joined(config.device):
        if distributed.world_size() > 1:
            raise UserError("alignbench evaluate-reward runs in one process.")
        display = Display(Console(stderr=True, highlight=False))
        environment.reset_peak_memory()
        torch.use_deterministic_algorithms(True, warn_only=True)
        data = _data(target, display)
        kind = _kind(target, data)
        if kind in (_Kind.AS_IT_IS, _Kind.TEXTS):
            target = target.as_it_is(with_model=kind is _Kind.AS_IT_IS)
        reused = {"reward": target.run.name} if target.run else {}
        who = _identity(target, kind)
        new_row = lifecycle.new_row(config, MEASURED_REWARD, who, target.yaml, reused=reused, say=display.say)
        with new_row as (directory, record), lifecycle.ending(directory, record, display):
            ready = _ready(target, kind, data, directory, display)
            measured = _measured(target, ready, data, display)
            directory.write_examples(measured.scores)
            said = {f"reward/{name}": value for name, value in {**ready.fit, **ready.source.report()}.items()}
            lifecycle.finish(
                directory,
                record,
                metrics=measured.metrics,
                unanswered={},
                reports=said,
                counts={**data.counts(), **ready.counts},
                ended=None,
                reused={**reused, **display.reused},
                cost=lifecycle.spent(display.seconds),
            )
        which = "held-out" if ready.held_out else "all"
        print_measures(
            f"reward={_name(target)} on data={config.data.label}: {which} rankings, {len(ready.rankings)}",
            measured.metrics, measured.subsets, Console(),
        )  # fmt: skip
        print(f"\nThe row lies in {directory.path}")
    return directory.path


def _name(target: RewardTarget) -> str:
    return f"{target.label} of {target.run.name}" if target.run else target.label


class _Kind(enum.Enum):
    """How a source is made ready."""

    RUN = "as a run left it"
    FITTED = "by the first stages of a run, which may fit it"
    AS_IT_IS = "as it is, on recorded rankings, with a model's tokens"
    TEXTS = "as it is, on recorded rankings, from texts alone"


def _kind(target: RewardTarget, data: DataSource) -> _Kind:
    if target.run:
        return _Kind.RUN
    if not data.rankings() or needs_rankings(target.config):
        return _Kind.FITTED
    return _Kind.AS_IT_IS if target.names_model or data.tokenizer() is not None else _Kind.TEXTS


def _data(target: RewardTarget, display: Display) -> DataSource:
    config = target.config
    with display.stage("data") as note:
        data: DataSource = config.data.build(seeds=Seeds(config.seed).child("data"))
        note.text = ", ".join(f"{count} {reason}" for reason, count in data.counts().items() if count)
        if not target.implicit:
            config.reward.load().check_data(config.reward.config, data)
    say_notes(data, display)
    return data


def _identity(target: RewardTarget, kind: _Kind) -> Identity:
    config = target.config
    component = config.algo.component if target.implicit else config.reward.component
    ranked = kind is _Kind.FITTED or (target.identity is not None and target.identity.annotator is not None)
    who = lifecycle.identity(config, config.algo, target.config_hash, annotator=ranked, reward=True)
    return dataclasses.replace(
        who,
        algo=MEASURED_REWARD,
        reward=target.label,
        plugin=component.distribution,
        plugin_version=component.version,
        model="none" if kind is _Kind.TEXTS else config.model.label,
    )


def _ready(target: RewardTarget, kind: _Kind, data: DataSource, directory: RunDirectory, display: Display) -> Ready:
    if kind is _Kind.RUN:
        return _of_run(target, data, display)
    if kind is _Kind.FITTED:
        return _made_here(target, data, directory, display)
    return _as_it_is(target, data, display, texts_alone=kind is _Kind.TEXTS)


def _of_run(target: RewardTarget, data: DataSource, display: Display) -> Ready:
    """The source as the run left it, in the run's own model."""
    config, run, seeds = target.config, target.run, Seeds(target.config.seed)
    assert run is not None and target.trained_on is not None, "of a run"
    own = target.trained_on.build(seeds=seeds.child("data")) if target.other_data else data
    policy = load_model(config, own, seeds, display)
    # A model of ordinary text reads whatever it is asked; a made-up language is read by those alone who learnt it.
    if not reads_ordinary_text(policy, own) and reads_ordinary_text(policy, data):
        raise UserError(
            f"data={config.data.label} is not in the language of {run.name}, whose model knows that of "
            f"data={target.trained_on.label} alone: choose a run on such data, or leave data out."
        )
    start = weights(run if config.imitates else run / BASELINE)
    policy.load(start)
    policy.freeze_reference()
    source: RewardSource
    if target.implicit:
        implicit = config.algo.config.implicit_reward()
        assert implicit is not None, "a run without one is refused"
        policy.load(weights(run))
        source = PolicyReward(policy, implicit)
    else:
        source = config.reward.build(policy=policy, data=data, seeds=seeds.child("reward"))
        if isinstance(source, FittableRewardSource) and source.needs_rankings(config.reward.config):
            source.load(run / "reward")
            policy.load(start)
    if target.other_data:
        if not data.rankings():
            raise UserError(f"data={config.data.label} has no recorded rankings to measure a reward by.")
        return _within_window(Ready(source, policy, data.rankings(), held_out=False), display)
    annotator = target.identity.annotator if target.identity else None
    train, held_out = _collected(run, data, annotator)
    chosen = [*train, *held_out] if target.measuring.everything else held_out
    return _within_window(Ready(source, policy, chosen, held_out=not target.measuring.everything), display)


def _collected(run: Path, data: DataSource, annotator: str | None) -> tuple[Sequence[Ranking], Sequence[Ranking]]:
    """The rankings of a run, to learn from and held out."""
    if (run / RANKINGS).is_file():
        return stored.rankings(run, [p for split in Split for p in data.prompts(split)], annotator=annotator)
    if data.rankings():
        return (), data.rankings()
    raise UserError(f"{run.name} collected no rankings, and its data has none: name others with data=.")


def _as_it_is(target: RewardTarget, data: DataSource, display: Display, *, texts_alone: bool) -> Ready:
    """A source that learns from no rankings, on recorded ones: no model is trained, and where none was chosen none is loaded."""
    config, seeds = target.config, Seeds(target.config.seed)
    policy: Policy
    if texts_alone:
        policy = TextsAlone(pick_device(config.device))
    else:
        policy = load_model(config, data, seeds, display)
        policy.freeze_reference()
    source: RewardSource = config.reward.build(policy=policy, data=data, seeds=seeds.child("reward"))
    return _within_window(Ready(source, policy, data.rankings(), held_out=False, sft=False), display)


def _made_here(target: RewardTarget, data: DataSource, directory: RunDirectory, display: Display) -> Ready:
    """By the first stages of a run: the SFT model, rankings, and the fit where the source learns from them."""
    config, seeds = target.config, Seeds(target.config.seed)
    annotator: Annotator = config.annotator.build(data=data, seeds=seeds.child("annotator"))
    if not annotator.samples_responses and not annotator.recorded():
        raise UserError(
            f"data={config.data.label} has no recorded rankings, and annotator={config.annotator.label} ranks no samples: "
            "choose other data, or an annotator that does."
        )
    if not data.prompts(Split.TRAIN) or not data.prompts(Split.EVALUATION):
        raise UserError(f"data={config.data.label} has no training or no evaluation prompts: nothing can be fitted.")
    both = Data(data, annotator)
    policy = load_model(config, data, seeds, display)
    prompts = read_prompts(config, both, policy, display)
    with curves.tracked(config, directory) as tracker:
        bench = workbench(config, directory, display, tracker, policy.device)
        sft = shared_stages.sft(bench, config=config, data=data, policy=policy)
        policy.freeze_reference()
        rankings = shared_stages.rankings(
            bench, config=config, annotator=annotator, policy=policy, prompts=prompts, sft_key=sft.key
        )
        assert rankings is not None, "somebody ranks"
        scorer = shared_stages.reward(
            bench, config=config, data=both, policy=policy, prompts=prompts, rankings=rankings, sft_key=sft.key
        )
        assert scorer is not None, "the algorithm of the configuration asks for scores"
    everything = target.measuring.everything
    chosen = (*rankings.train, *rankings.held_out) if everything else rankings.held_out
    counts = set_aside.of_rankings(policy, Rankings((), tuple(chosen), rankings.over_window))
    display.say_all(set_aside.lines(counts, policy))
    return Ready(scorer.source, policy, chosen, not everything, counts=counts, fit=scorer.fit)


def _within_window(ready: Ready, display: Display) -> Ready:
    """Without the rankings whose prompt does not fit the model; they are counted aloud."""
    policy = ready.policy
    if isinstance(policy, TextsAlone):
        return ready
    kept = [r for r in ready.rankings if policy.prompt_tokens(r.prompt) <= policy.max_prompt_tokens]
    if not kept:
        raise UserError(
            f"No prompt of {len(ready.rankings)} rankings fits model.max_prompt_tokens={policy.max_prompt_tokens}: raise it."
        )
    counts = set_aside.of_rankings(policy, Rankings((), tuple(kept), len(ready.rankings) - len(kept)))
    display.say_all(set_aside.lines(counts, policy))
    return dataclasses.replace(ready, rankings=kept, counts=counts)


def _measured(target: RewardTarget, ready: Ready, data: DataSource, display: Display) -> Measured:
    pool = None
    if ready.sft and target.measuring.best_of and (asked := _questions(target, ready.policy, data, display)):
        with display.stage("best of n") as note:
            seeds = Seeds(target.config.seed).child("best of n")
            pool = draw_pool(ready.policy, ready.source, data, asked, target.measuring.best_of, seeds)
            note.text = f"{len(asked)} prompts, {target.measuring.best_of} responses to each"
    with display.stage("measure"):
        return measure(ready.source, ready.policy, ready.rankings, pool)


def _questions(target: RewardTarget, policy: Policy, data: DataSource, display: Display) -> Sequence[Prompt]:
    """Evaluation prompts whose truth is known; none where it is not."""
    held_out = data.prompts(Split.EVALUATION)
    if not held_out or data.judge(held_out[0], "", finished=True) is None:
        return ()
    settings = dataclasses.replace(target.config.eval, questions=target.measuring.questions)
    return evaluation_prompts(fit_window(policy, held_out, "evaluation", display), settings)
