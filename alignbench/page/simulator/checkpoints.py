"""What trained checkpoints said to the prompts of a simulator; where all responses are written down, how likely each has become."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from alignbench import functional
from alignbench.app.target import of_run
from alignbench.evaluation.respond import given_samples
from alignbench.page.simulator import columns
from alignbench.page.simulator.responses import Responses, coloured, likelihoods, told
from alignbench.page.simulator.world import World, checkpoint, own_reward, reward_of
from alignbench.records import REFERENCE, Prompt, Samples
from alignbench.results.disk.directory import GENERATIONS
from alignbench.results.disk.runs import StoredRun
from alignbench.scoring import checked_scores


def compared(
    world: World, run: StoredRun, prompts: Sequence[Prompt], asked: Sequence[Responses]
) -> dict[str, Any] | None:
    """A run as the simulator shows it beside the tilt; None where nothing is known of it on these prompts."""
    who, reward = run.record.identity, reward_of(run)
    found = _everything(world, run, asked) if asked and asked[0].probabilities else _said(world, run, prompts)
    if found is None:
        return None
    return {
        "run": run.path.name,
        "label": label(run),
        "algo": who.algo,
        "annotator": who.annotator,
        "reward": next((named.name for named, _ in world.rewards if reward and named.name == reward.name), None),
        **found,
    }


def _everything(world: World, run: StoredRun, asked: Sequence[Responses]) -> dict[str, Any]:
    """Nothing is estimated: the probability of each response that was written down, and the KL from the SFT model."""
    world.policy.load(checkpoint(run))
    n = of_run(run.path, ()).config.algo.config.candidates
    weights, kls, tokens = [], [], []
    for responses in asked:
        sequences, prior = responses.samples.sequences, torch.tensor(responses.probabilities, dtype=torch.double)
        reached = likelihoods(world.policy, responses.samples)
        if n > 1:
            scores = chosen_by(world, run, responses.samples).double().cpu()
            reached = functional.best_of_n(reached[None], scores[None], n)[0]
        kls.append(float(functional.kl_divergence(reached[None], prior[None])))
        weights += reached.tolist()
        with torch.no_grad():
            ratios = world.policy.logprobs(sequences).logprobs
            ratios = ratios - world.policy.logprobs(sequences, role=REFERENCE).logprobs
        lengths = sequences.response_mask.sum(1).tolist()
        rows = [row[:end] for row, end in zip(sequences.response_ids.tolist(), lengths, strict=True)]
        tokens += coloured(world.policy, rows, ratios)
    return {
        "kl": math.fsum(kls) / len(kls),
        "bound": None,
        "weights": columns.exact(weights),
        "tokens": tokens,
    }


def _said(world: World, run: StoredRun, prompts: Sequence[Prompt]) -> dict[str, Any] | None:
    """What it said to these prompts when it was evaluated, with each token's log pi / pi_sft under its weights."""
    places = {prompt.id: place for place, prompt in enumerate(prompts)}
    lines = [line for line in generations(run.path) if line.get("prompt") in places]
    shared = [line for line in lines if isinstance(line.get("logprob"), float)]
    if not shared:
        return None
    asked = [prompts[places[line["prompt"]]] for line in shared]
    tokens = world.policy.response_tokens([line["response"] for line in shared], [line["finished"] for line in shared])
    samples = given_samples(world.policy, asked, tokens)
    with torch.no_grad():
        world.policy.load(checkpoint(run))
        own = world.policy.logprobs(samples.sequences).logprobs
        ratios = own - world.policy.logprobs(samples.sequences, role=REFERENCE).logprobs
    best = any(name.startswith("optimization/kl_bound") for name in run.record.metrics)
    return {
        # As it was measured: a token that is no text is not among those that are read again here.
        "kl": None if best else math.fsum(line["logprob"] - line["ref_logprob"] for line in shared) / len(shared),
        "bound": run.record.metrics["optimization/kl_bound"].value if best else None,
        "prompts": columns.counts([places[prompt.id] for prompt in asked]),
        **told(world, samples, ratios),
    }


def chosen_by(world: World, run: StoredRun, samples: Samples) -> torch.Tensor:
    """Scores by the reward that a run chooses the best of its candidates by."""
    return checked_scores(own_reward(world, run), samples)


def label(run: StoredRun) -> str:
    """The algorithm, who ranked, and its own coefficient where it has one."""
    who, settings = run.record.identity, run.settings
    shown = [f"{name} {settings[f'algo.{name}']:g}" for name in ("kl_coef", "beta", "n") if f"algo.{name}" in settings]
    return ", ".join([who.algo_label or who.algo, *([who.annotator] if who.annotator else []), *shown[:1]])


def generations(run: Path) -> Iterator[dict[str, Any]]:
    """What a run said when it was evaluated, line by line."""
    path = run / GENERATIONS
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
