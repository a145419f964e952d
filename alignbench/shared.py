"""The stages that runs share: made once under the name of all that went into them, then read back by whoever needs them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignbench import keys
from alignbench.artifacts import Store, Write, cache_root
from alignbench.checkpoints import Checkpoints
from alignbench.config import BudgetSettings, RunConfig, Selected
from alignbench.contracts import Annotator, DataSource, Evaluation, FittableRewardSource, Policy, Tracker
from alignbench.curves import Curves
from alignbench.evaluation import stored
from alignbench.evaluation.suite import Evaluated
from alignbench.experience import reference_logprobs
from alignbench.progress import Display, closing_figures
from alignbench.records import Demonstration, FitReport, Prompt, Ranking, Sequences
from alignbench.results.directory import CHECKPOINTS, RunDirectory
from alignbench.seeds import Seeds
from alignbench.stages import Rankings, fit_reward, gather_rankings, imitate
from alignbench.training import NO_BUDGET, Trained

STAGE = "stage.json"
WEIGHTS = "policy"


@dataclass(frozen=True)
class Workbench:
    """Where a run's stages keep what they make, and tell what they do."""

    store: Store
    checkpoints: Checkpoints
    display: Display
    curves: Curves
    directory: RunDirectory
    seeds: Seeds

    def reused(self, stage: str, note: Mapping[str, Any], made_by: str) -> None:
        """A stage that another run has paid for costs what it cost there: rows of one table stay comparable."""
        self.display.seconds.update(note["seconds"])
        if made_by != self.directory.run_id:
            self.display.reused[stage] = made_by
        self.display.say(f"{stage:<12}  reused     {note['text']}".rstrip())


def workbench(
    config: RunConfig, directory: RunDirectory, display: Display, tracker: Tracker, device: torch.device
) -> Workbench:
    """Without a cache, a run keeps its finished stages beside its checkpoints, for as long as it is unfinished."""
    unfinished = directory.path / CHECKPOINTS
    chosen = [config.algo, config.sft, config.pretrain, config.model, config.data, config.reward, config.annotator]
    key = keys.digest(keys.environment(device), config.hash, config.seed, [keys.component(part) for part in chosen])
    return Workbench(
        store=Store(
            cache_root(config.cache_dir) if config.cache else unfinished / "stages", directory.run_id, display.say
        ),
        checkpoints=Checkpoints(unfinished, key, display.say),
        display=display,
        curves=Curves(directory, tracker, display),
        directory=directory,
        seeds=Seeds(config.seed),
    )


def sft(bench: Workbench, config: RunConfig, data: DataSource, policy: Policy, key: str) -> Trained | None:
    """The policy after pretraining (a model that knows nothing learns its lessons) and supervised fine-tuning."""
    budget = config.budget if config.imitates else NO_BUDGET
    lessons = () if policy.pretrained else data.lessons()

    def make() -> Write:
        trained, done = None, {}
        if lessons and bench.checkpoints.restore("sft") is None:
            done["pretrain"] = _imitated(bench, "pretrain", config.pretrain, lessons, policy, NO_BUDGET)
        if data.demonstrations():
            trained = done["sft"] = _imitated(bench, "sft", config.start, data.demonstrations(), policy, budget)
        seconds = {
            stage: bench.display.seconds[stage] for stage in ("pretrain", "sft") if stage in bench.display.seconds
        }
        figures = trained or done.get("pretrain")
        note = {
            "seconds": seconds,
            "text": closing_figures(figures.metrics) if figures else "",
            "trained": dataclasses.asdict(trained) if trained else None,
        }

        def write(folder: Path) -> None:
            policy.save(folder / WEIGHTS)
            _write_note(folder, note)
            bench.curves.save(folder, ("pretrain", "sft"))

        return write

    def load(folder: Path, made_by: str) -> Trained | None:
        (saved,) = (folder / WEIGHTS).iterdir()
        policy.load(saved)
        note = _read_note(folder)
        if made_by:
            bench.curves.replay(folder)
            bench.reused("sft", note, made_by)
        return Trained(**note["trained"]) if note["trained"] else None

    return bench.store.once("sft", key, make, load)


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
            stage, chosen, demonstrations, policy,
            seeds=bench.seeds.child(stage), step=bench.curves.step, budget=budget, checkpoints=bench.checkpoints,
        )  # fmt: skip
        line.text = closing_figures(done.metrics)
    bench.display.seconds[stage] = max(bench.display.seconds[stage], done.seconds)  # what came before a kill counts
    return done


def rankings(
    bench: Workbench,
    config: RunConfig,
    annotator: Annotator,
    policy: Policy,
    prompts: Sequence[Prompt],
    held_out: Sequence[Prompt],
    key: str,
) -> Rankings:
    """Rankings of the SFT model's responses. Recorded ones are read from their source each time: nothing is sampled."""
    ids = frozenset(prompt.id for prompt in held_out)

    def gather() -> Rankings:
        return gather_rankings(config.rankings, annotator, policy, prompts, ids, seeds=bench.seeds.child("rankings"))

    if not annotator.samples_responses:
        return gather()
    by_id = {prompt.id: prompt for prompt in prompts}

    def make() -> Write:
        with bench.display.stage("rankings") as line:
            found = gather()
            line.text = f"{len(found.train)} to learn from, {len(found.held_out)} held out"
        note = {"seconds": {"rankings": bench.display.seconds["rankings"]}, "text": line.text}

        def write(folder: Path) -> None:
            _write_note(folder, note)
            parts = {part: [_ranking(r) for r in getattr(found, part)] for part in ("train", "held_out")}
            (folder / "rankings.json").write_bytes(json.dumps(parts).encode())

        return write

    def load(folder: Path, made_by: str) -> Rankings:
        saved = json.loads((folder / "rankings.json").read_bytes())
        if made_by:
            bench.reused("rankings", _read_note(folder), made_by)
        return Rankings(*(tuple(_as_ranking(r, by_id) for r in saved[part]) for part in ("train", "held_out")))

    return bench.store.once("rankings", key, make, load)


def _ranking(ranking: Ranking) -> list[Any]:
    return [ranking.prompt.id, ranking.responses, ranking.ranks, ranking.finished]


def _as_ranking(saved: Sequence[Any], prompts: Mapping[str, Prompt]) -> Ranking:
    prompt, *parts = saved
    return Ranking(prompts[prompt], *map(tuple, parts))


def reward(
    bench: Workbench,
    source: FittableRewardSource,
    ranked: Rankings,
    policy: Policy,
    prompts: Sequence[Prompt],
    annotator: Annotator,
    key: str,
) -> FitReport:
    """A reward source fitted to the rankings, saved in the run's directory too."""

    def make() -> Write:
        with bench.display.stage("reward") as line:
            report = fit_reward(
                source, ranked, policy, prompts, annotator,
                seeds=bench.seeds.child("reward"), step=bench.curves.step, checkpoints=bench.checkpoints,
            )  # fmt: skip
            line.text = report.summary
        note = {
            "seconds": {"reward": bench.display.seconds["reward"]},
            "text": report.summary,
            "metrics": dict(report.metrics),
        }

        def write(folder: Path) -> None:
            source.save(folder / "reward")
            _write_note(folder, note)
            bench.curves.save(folder, ("reward",))

        return write

    def load(folder: Path, made_by: str) -> FitReport:
        source.load(folder / "reward")
        note = _read_note(folder)
        if made_by:
            bench.curves.replay(folder)
            bench.reused("reward", note, made_by)
        with bench.directory.writing("reward"):
            bench.directory.copy(folder / "reward", "reward")
        return FitReport(note["metrics"], note["text"])

    return bench.store.once("reward", key, make, load)


class _IncompleteError(Exception):
    """An evaluation that lacks answers."""

    def __init__(self, found: Evaluated) -> None:
        super().__init__()
        self.found = found


def evaluated_sft(
    bench: Workbench,
    home: RunDirectory,
    measure: Callable[[], Evaluated],
    questions: Sequence[Prompt],
    samples: int,
    evaluations: Sequence[Evaluation],
    key: str,
) -> Evaluated:
    """The SFT model's row: the baseline of every comparison. Its files are written into `home`.

    What a judge did not answer is asked again by the next run: an evaluation that lacks answers is not shared."""

    def make() -> Write:
        with bench.display.stage("evaluate sft"):
            found = measure()
        if any(metric.missing for metric in found.metrics.values()):
            raise _IncompleteError(found)
        note = {"seconds": {"evaluate sft": bench.display.seconds["evaluate sft"]}, "text": ""}

        def write(folder: Path) -> None:
            stored.save(found, folder)
            _write_note(folder, note)

        return write

    def load(folder: Path, made_by: str) -> Evaluated:
        if made_by:
            bench.reused("evaluate sft", _read_note(folder), made_by)
        for name in stored.FILES:
            home.copy(folder / name, name)
        return stored.load(folder, questions, samples, evaluations)

    try:
        return bench.store.once("evaluation", key, make, load)
    except _IncompleteError as incomplete:
        stored.save(incomplete.found, home.path)
        return incomplete.found


def reference(bench: Workbench, sft_key: str) -> Callable[[Policy, Sequences], Tensor]:
    """`experience.reference_logprobs` that remembers: under the SFT model and the very tokens that were read."""

    def ask(policy: Policy, sequences: Sequences) -> Tensor:
        def make() -> Write:
            found = reference_logprobs(policy, sequences).cpu()
            return lambda folder: save_file({"logprobs": found}, folder / "reference.safetensors")

        def load(folder: Path, made_by: str) -> Tensor:
            return load_file(folder / "reference.safetensors")["logprobs"].to(policy.device)

        return bench.store.once("reference", keys.digest(sft_key, keys.of_tokens(sequences)), make, load)

    return ask


def _write_note(folder: Path, note: Mapping[str, Any]) -> None:
    (folder / STAGE).write_text(json.dumps(note), encoding="utf-8")


def _read_note(folder: Path) -> Mapping[str, Any]:
    note: Mapping[str, Any] = json.loads((folder / STAGE).read_text(encoding="utf-8"))
    return note
