"""The responses that every generation metric is computed from, with what is measured of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alignbench import functional
from alignbench.contracts import REFERENCE, DataSource, Policy, RewardSource
from alignbench.experience import checked_scores
from alignbench.records import Generation, Prompt, Sampling


def respond(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    n: int,
    temperature: float,
    data: DataSource,
    reward: RewardSource | None,
    rng: torch.Generator,
) -> tuple[Generation, ...]:
    """Samples n responses to each prompt and measures them.

    Log-probabilities, KL and entropy are those of the model itself (temperature 1), whatever it was sampled at."""
    samples = policy.generate(prompts, Sampling(temperature=temperature), n=n, rng=rng).samples
    sequences, mask = samples.sequences, samples.sequences.response_mask
    with torch.no_grad():
        own = policy.logprobs(sequences, entropy=True)
        ref = policy.logprobs(sequences, role=REFERENCE)
    assert own.entropy is not None, "asked for"
    scores = checked_scores(reward, samples).tolist() if reward else [None] * len(samples)
    columns = zip(
        samples.prompts,
        samples.texts,
        mask.sum(1).tolist(),
        samples.finished.tolist(),
        own.logprobs.sum(1).tolist(),
        ref.logprobs.sum(1).tolist(),
        functional.masked_mean(own.entropy, mask, dim=1).tolist(),
        scores,
        strict=True,
    )
    return tuple(
        Generation(
            prompt,
            row % n,
            text,
            tokens,
            finished,
            logprob,
            ref_logprob,
            entropy,
            score,
            data.judge(prompt, text, finished=finished),
        )
        for row, (prompt, text, tokens, finished, logprob, ref_logprob, entropy, score) in enumerate(columns)
    )
