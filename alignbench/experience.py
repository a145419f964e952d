"""What feeds an optimizer: prompts to scored rollouts, demonstrations or rankings to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from alignbench import functional
from alignbench.contracts import Annotator, OptimizerConfig, Policy, RewardSource
from alignbench.errors import UserError
from alignbench.records import (
    Demonstration,
    DemonstrationBatch,
    PreferenceBatch,
    PreferencePair,
    Prompt,
    Ranking,
    Samples,
    Sampling,
    ScoredRollout,
)
from alignbench.seeds import Seeds

Batch = DemonstrationBatch | ScoredRollout | PreferenceBatch


def planned_updates(config: OptimizerConfig, rows: int) -> int:
    """How many batches an optimizer will be given."""
    if config.updates > 0:
        return config.updates
    return max(round(config.passes * rows / config.batch_size), 1)


def fitting(policy: Policy, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that fit the policy's window."""
    return [prompt for prompt in prompts if policy.prompt_tokens(prompt) <= policy.max_prompt_tokens]


def demonstration_batches(
    policy: Policy, demonstrations: Sequence[Demonstration], config: OptimizerConfig, *, updates: int, seeds: Seeds
) -> Iterator[DemonstrationBatch]:
    sequences = policy.encode([d.prompt for d in demonstrations], [d.response for d in demonstrations]).sequences
    batches = functional.shuffled_batches(len(demonstrations), config.batch_size, seeds.torch("order"))
    for rows in islice(batches, updates):
        yield DemonstrationBatch(sequences.select(rows))


def rollout_batches(
    policy: Policy,
    reward: RewardSource,
    prompts: Sequence[Prompt],
    config: OptimizerConfig,
    *,
    updates: int,
    seeds: Seeds,
) -> Iterator[ScoredRollout]:
    """Sampled from the policy as it stands when the batch is asked for: the data is always on-policy."""
    n = config.samples_per_prompt
    order, rng = seeds.torch("prompts"), seeds.torch("sampling", policy.device)
    for rows in islice(functional.shuffled_batches(len(prompts), config.batch_size // n, order), updates):
        chosen = [prompts[i] for i in rows.tolist()]
        rollout = policy.generate(chosen, Sampling(temperature=config.temperature), n=n, rng=rng)
        yield ScoredRollout(rollout, checked_scores(reward, rollout.samples))


def preference_batches(
    policy: Policy, pairs: Sequence[PreferencePair], config: OptimizerConfig, *, updates: int, seeds: Seeds
) -> Iterator[PreferenceBatch]:
    if not pairs:
        raise UserError("No ranking has two different responses of different rank: there is nothing to learn from.")
    prompts = [pair.prompt for pair in pairs]
    chosen = policy.encode(prompts, [p.chosen for p in pairs], finished=[p.finished[0] for p in pairs]).sequences
    rejected = policy.encode(prompts, [p.rejected for p in pairs], finished=[p.finished[1] for p in pairs]).sequences
    known = [p.probability for p in pairs if p.probability is not None]
    probability = torch.tensor(known) if len(known) == len(pairs) else None
    batches = functional.shuffled_batches(len(pairs), config.batch_size, seeds.torch("order"))
    for rows in islice(batches, updates):
        labels = probability[rows] if probability is not None else None
        yield PreferenceBatch(chosen.select(rows), rejected.select(rows), labels)


def checked_scores(reward: RewardSource, samples: Samples) -> Tensor:
    """A reward source's scores, held to its contract: one finite float32 number per response, without gradient."""
    scores = reward.score(samples)
    if scores.shape != (len(samples),):
        raise UserError(f"The reward source gave scores of shape {tuple(scores.shape)} for {len(samples)} responses.")
    return functional.require_finite("the reward", scores.detach().float(), hint="Check the reward source.")


def labelled_pairs(rankings: Sequence[Ranking], annotator: Annotator) -> list[PreferencePair]:
    """All pairs of the rankings, each with the annotator's own probability where it is known."""
    return [
        PreferencePair(
            pair.prompt,
            pair.chosen,
            pair.rejected,
            annotator.preference(pair.prompt, pair.chosen, pair.rejected, finished=pair.finished),
            pair.finished,
        )
        for ranking in rankings
        for pair in functional.ranking_to_pairs(ranking)
    ]


def collect_rankings(
    policy: Policy,
    annotator: Annotator,
    prompts: Sequence[Prompt],
    *,
    responses: int,
    temperature: float,
    rng: torch.Generator,
) -> list[Ranking]:
    """Samples `responses` responses to each prompt and has them ranked: step two of InstructGPT (arXiv 2203.02155)."""
    samples = policy.generate(prompts, Sampling(temperature=temperature), n=responses, rng=rng).samples
    ended = samples.finished.tolist()
    rankings = []
    for i, prompt in enumerate(prompts):
        rows = slice(i * responses, (i + 1) * responses)
        texts, finished = samples.texts[rows], tuple(ended[rows])
        rankings.append(Ranking(prompt, texts, annotator.rank(prompt, texts, finished=finished), finished))
    return rankings
