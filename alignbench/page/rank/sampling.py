"""Responses for people to rank: a run's own first steps, stopped where an annotator would rank."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from alignbench.app.config import RunConfig
from alignbench.contracts import DataSource, Policy
from alignbench.errors import UserError
from alignbench.pipeline import curves, shared_stages
from alignbench.pipeline.display import Display
from alignbench.pipeline.evaluate import weights
from alignbench.pipeline.preparation import fit_window, load_model
from alignbench.pipeline.workbench import workbench
from alignbench.records import Prompt, Sampling, Split
from alignbench.results.disk.directory import RunDirectory
from alignbench.seeds import Seeds

SPARE = 2
"""Responses drawn for each that is asked for: equal ones are shown to nobody twice."""


@dataclass(frozen=True)
class Sampled:
    """Different responses to a prompt. `gold`: how right each is, where the data knows the truth."""

    prompt: Prompt
    responses: tuple[str, ...]
    finished: tuple[bool, ...]
    gold: tuple[float, ...]


def sample(config: RunConfig, *, prompts: int, responses: int, run: Path | None = None) -> list[Sampled]:
    """`responses` different responses (at least two) to each of so many training prompts, of the SFT model of these settings, or
    of the policy of a finished run."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    display, seeds = Display(), Seeds(config.seed)
    with display.stage("data"):
        data: DataSource = config.data.build(seeds=seeds.child("data"))
    if not data.prompts(Split.TRAIN):
        raise UserError(f"data={config.data.label} has no training prompts: there is nothing to respond to.")
    policy = load_model(config, data, seeds, display)
    usable = fit_window(policy, data.prompts(Split.TRAIN), "training", display)
    if run:
        policy.load(weights(run))
    else:
        _fine_tune(config, data, policy, display)
    own = seeds.child("people")
    rows = torch.randperm(len(usable), generator=own.torch("prompts")).tolist()
    found: list[Sampled] = []
    with display.stage("responses") as note:
        while len(found) < prompts and rows:
            chosen, rows = rows[: prompts - len(found)], rows[prompts - len(found) :]
            asked = [usable[i] for i in chosen]
            found += _different(policy, data, asked, responses, config.rankings.temperature, own, len(rows))
        note.text = f"{len(found)} prompts"
    if not found:
        raise UserError("The model gives one and the same response to every prompt: there is nothing to rank.")
    return found


def _fine_tune(config: RunConfig, data: DataSource, policy: Policy, display: Display) -> None:
    """The very stage that a run with these settings begins with, shared with it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "rank-sample"
        home.mkdir()
        directory = RunDirectory(home)
        tracker = curves.tracker(config, directory)
        try:
            bench = workbench(config, directory, display, tracker, policy.device)
            shared_stages.sft(bench, config=config, data=data, policy=policy)
        finally:
            tracker.finish()


def _different(
    policy: Policy,
    data: DataSource,
    prompts: Sequence[Prompt],
    responses: int,
    temperature: float,
    seeds: Seeds,
    left: int,
) -> list[Sampled]:
    n = responses * SPARE
    samples = policy.generate(
        prompts, Sampling(temperature=temperature), n=n, rng=seeds.torch(f"sampling {left}")
    ).samples
    ended = samples.finished.tolist()
    found = []
    for i, prompt in enumerate(prompts):
        first: dict[str, bool] = {}
        for row in range(i * n, (i + 1) * n):
            first.setdefault(samples.texts[row], ended[row])
        kept = list(first.items())[:responses]
        if len(kept) < 2:
            continue
        verdicts = [data.judge(prompt, text, finished=end) for text, end in kept]
        gold = tuple(verdict.gold_reward for verdict in verdicts if verdict)
        texts, finished = zip(*kept, strict=True)
        found.append(Sampled(prompt, texts, finished, gold if len(gold) == len(kept) else ()))
    return found
