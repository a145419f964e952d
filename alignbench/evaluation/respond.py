"""What a checkpoint is asked: for responses, with what is measured of each, and for the likelihood of given ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from alignbench import functional
from alignbench.contracts import DataSource, Policy, RewardSource
from alignbench.errors import UserError
from alignbench.records import REFERENCE, Generation, Likelihood, Prompt, Samples, Sampling, Sequences
from alignbench.scoring import checked_scores


def respond(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    n: int,
    temperature: float,
    data: DataSource,
    reward: RewardSource | None,
    rng: torch.Generator,
    candidates: int = 1,
) -> tuple[Generation, ...]:
    """Samples n responses to each prompt and measures them; with `candidates`, each is the best of so many."""
    samples = policy.generate(prompts, Sampling(temperature=temperature), n=n * candidates, rng=rng).samples
    if candidates > 1:
        if reward is None:
            raise UserError("The best of several candidates needs a reward source to choose by.")
        groups = checked_scores(reward, samples).reshape(-1, candidates)
        # The first of equals: which of them comes first is chance already.
        best = groups.argmax(1) + torch.arange(len(groups), device=groups.device) * candidates
        samples = samples.select(best)
    return measure(policy, samples, data=data, reward=reward, temperature=temperature)


def given_samples(policy: Policy, prompts: Sequence[Prompt], responses: Sequence[Sequence[int]]) -> Samples:
    """Responses that are given as token ids, EOS included where they end by themselves."""
    finished = torch.tensor([bool(row) and row[-1] in policy.eos_token_ids for row in responses])
    sequences = policy.given(prompts, responses)
    return Samples(tuple(prompts), policy.response_texts(responses), sequences, finished.to(policy.device))


def likelihoods(
    policy: Policy,
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[int]],
    counted: Sequence[int] | None = None,
) -> tuple[Likelihood, ...]:
    """Of given responses after each prompt, as token ids; `counted`: see Subject."""
    if not prompts:
        return ()
    sequences = policy.given(prompts, responses)
    lengths = torch.tensor([len(row) for row in responses])
    wanted = lengths if counted is None else torch.tensor(list(counted))
    # Where more than the response counts, the ends of the prompts become the beginnings of the responses.
    moved = max(int((wanted - lengths).max()), 0)
    if moved:
        if int(sequences.prompt_mask.sum(1).min()) <= moved:
            raise ValueError(f"{moved} tokens of a prompt are to be counted, which is all that it has")
        rest = sequences.prompt_ids.shape[1] - moved
        sequences = Sequences(
            sequences.prompt_ids[:, :rest],
            sequences.prompt_mask[:, :rest],
            torch.cat([sequences.prompt_ids[:, rest:], sequences.response_ids], 1),
            torch.cat([sequences.prompt_mask[:, rest:], sequences.response_mask], 1),
        )
    with torch.no_grad():
        found = policy.logprobs(sequences, greedy=True)
    assert found.greedy is not None, "asked for"
    column, end = torch.arange(sequences.response_ids.shape[1])[None], moved + lengths[:, None]
    counts = ((column < end) & (column >= end - wanted[:, None])).to(policy.device)
    greedy = (found.greedy | ~counts).all(1)
    sums = (found.logprobs.double() * counts).sum(1)
    return tuple(Likelihood(*row) for row in zip(sums.tolist(), greedy.tolist(), strict=True))


def complete(
    policy: Policy, prompts: Sequence[Prompt], *, n: int, sampling: Sampling, rng: torch.Generator
) -> tuple[Generation, ...]:
    """Responses of which nothing is measured: a questionnaire needs their text alone."""
    if not prompts:
        return ()
    samples = policy.generate(prompts, sampling, n=n, rng=rng).samples
    lengths, finished = samples.sequences.response_mask.sum(1).tolist(), samples.finished.tolist()
    rows = zip(samples.prompts, samples.texts, lengths, finished, strict=True)
    return tuple(
        Generation(prompt, row % n, text, tokens, ended, logprob=math.nan, ref_logprob=math.nan, entropy=math.nan)
        for row, (prompt, text, tokens, ended) in enumerate(rows)
    )


def measure(
    policy: Policy, samples: Samples, *, data: DataSource, reward: RewardSource | None, temperature: float = 1.0
) -> tuple[Generation, ...]:
    """Measures responses. Log-probabilities and entropy are those of policy and reference at `temperature`: at that which
    they were sampled at, the mean log-ratio is a KL, that of what is sampled; at another it is none."""
    sequences, mask = samples.sequences, samples.sequences.response_mask
    with torch.no_grad():
        own = policy.logprobs(sequences, temperature=temperature, entropy=True)
        ref = policy.logprobs(sequences, role=REFERENCE, temperature=temperature)
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
    seen: Counter[str] = Counter()
    generations = []
    for prompt, text, tokens, finished, logprob, ref_logprob, entropy, score in columns:
        verdict = data.judge(prompt, text, finished=finished)
        number, seen[prompt.id] = seen[prompt.id], seen[prompt.id] + 1
        generations.append(
            Generation(prompt, number, text, tokens, finished, logprob, ref_logprob, entropy, score, verdict)
        )
    return tuple(generations)
