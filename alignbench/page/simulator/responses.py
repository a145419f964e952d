"""Responses with all that is known of each: samples of the SFT model, or every response there is where they can be written down."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.contracts import Policy
from alignbench.errors import AlignbenchError
from alignbench.evaluation.judge import PIECE
from alignbench.evaluation.respond import given_samples
from alignbench.page.simulator import columns
from alignbench.page.simulator.world import World
from alignbench.records import POLICY, REFERENCE, Prompt, Samples, Sampling, Verdict
from alignbench.scoring import checked_scores

MOST_WRITTEN_DOWN = 4096
"""Responses to a prompt: where there are no more, none is sampled."""
_CUT = "\ufffd"
"""What half a character is decoded to."""


@dataclass(frozen=True)
class Responses:
    """Different responses to one prompt: how often each was drawn or, where all were written down, how likely each is."""

    samples: Samples
    counts: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()


def respond(world: World, prompt: Prompt, n: int, rng: torch.Generator) -> Responses:
    """Draws n responses of the SFT model to one prompt; writes all down where that is possible."""
    if every := every_response(world.policy):
        return _written_down(world, prompt, every)
    drawn = world.policy.generate([prompt], Sampling(), n=n, role=REFERENCE, rng=rng).samples
    first: dict[tuple[str, bool], int] = {}
    counts: dict[int, int] = {}
    for row, said in enumerate(zip(drawn.texts, drawn.finished.tolist(), strict=True)):
        place = first.setdefault(said, row)
        counts[place] = counts.get(place, 0) + 1
    return Responses(drawn.select(torch.tensor(list(counts))), counts=tuple(counts.values()))


def every_response(policy: Policy) -> list[tuple[int, ...]]:
    """All that the policy could say, as token ids: ended, or cut off at its limit. Empty where they are too many."""
    ends, longest = policy.eos_token_ids, policy.max_response_tokens
    words = [token for token in range(len(policy.tokenizer)) if token not in ends]
    number = len(ends) * sum(len(words) ** k for k in range(longest)) + len(words) ** longest
    if number > MOST_WRITTEN_DOWN:
        return []
    ended = [(*said, end) for k in range(longest) for said in itertools.product(words, repeat=k) for end in ends]
    return [*ended, *itertools.product(words, repeat=longest)]


def _written_down(world: World, prompt: Prompt, every: Sequence[tuple[int, ...]]) -> Responses:
    samples = given_samples(world.policy, [prompt] * len(every), every)
    found = likelihoods(world.policy, samples, role=REFERENCE)
    possible = (found > 0).nonzero().squeeze(1)  # others are ruled out by the model's settings
    return Responses(samples.select(possible), probabilities=tuple(found[possible].tolist()))


def likelihoods(policy: Policy, samples: Samples, role: str = POLICY) -> Tensor:
    """[B] float64: how likely each of all responses is. They sum to 1, but for the rounding of the model's own arithmetic."""
    with torch.no_grad():
        found = policy.logprobs(samples.sequences, role=role).logprobs.double().sum(1).exp().cpu()
    if abs(float(found.sum()) - 1) >= 1e-3:
        raise AlignbenchError(
            f"The probabilities of all responses sum to {float(found.sum()):.4f}: some were not written down."
        )
    return found / found.sum()


def measured(world: World, asked: Sequence[Responses]) -> dict[str, Any]:
    """Columns over all different responses, prompt by prompt; `sizes` says how many each prompt has."""
    found = [_measured(world, responses) for responses in asked]
    rows = {name: [value for part in found for value in part[name]] for name in found[0]}
    texts = rows.pop("text")
    whole = any(responses.probabilities for responses in asked)
    pack = columns.exact if whole else columns.numbers
    shares = (
        {"prior": columns.exact([p for responses in asked for p in responses.probabilities])}
        if whole
        else {"counts": columns.counts([count for responses in asked for count in responses.counts])}
    )
    return {
        "sizes": [len(responses.samples) for responses in asked],
        **shares,
        "texts": texts,
        "columns": {name: pack(values) for name, values in rows.items()},
    }


def _measured(world: World, responses: Responses) -> dict[str, list[Any]]:
    samples = responses.samples
    if responses.probabilities:
        logprobs = [math.log(p) for p in responses.probabilities]
    else:
        with torch.no_grad():
            logprobs = world.policy.logprobs(samples.sequences, role=REFERENCE).logprobs.sum(1).tolist()
    return {
        "text": list(samples.texts),
        "length": [float(length) for length in samples.sequences.response_mask.sum(1).tolist()],
        "logprob": logprobs,
        **known(world, samples),
    }


def known(world: World, samples: Samples) -> dict[str, list[float]]:
    """What the data says of responses, the features of the annotators, and every reward."""
    rows = list(zip(samples.prompts, samples.texts, samples.finished.tolist(), strict=True))
    verdicts = [world.data.judge(prompt, text, finished=ended) for prompt, text, ended in rows]
    found = {
        "gold": _gold(world, samples, verdicts),
        "correct": [_or_nan(v.correct if v else None) for v in verdicts],
        "agrees": [_or_nan(v.agrees if v else None) for v in verdicts],
    }
    if world.annotators:
        someone = world.annotators[0][1]
        features = [someone.features(prompt, text, finished=ended) for prompt, text, ended in rows]
        for place, column in enumerate(zip(*features, strict=True)):
            found[f"feature{place}"] = [float(value) for value in column]
    for named, source in world.rewards:
        found[named.name] = checked_scores(source, samples).tolist()
    return found


def _gold(world: World, samples: Samples, verdicts: Sequence[Verdict | None]) -> list[float]:
    if world.gold is None:
        return [v.gold_reward if v else math.nan for v in verdicts]
    found: list[float] = []
    for rows in torch.arange(len(samples)).split(PIECE):
        try:
            found += checked_scores(world.gold[1], samples.select(rows)).tolist()
        except AlignbenchError:  # an evaluation leaves out what a judge does not answer, too
            found += [math.nan] * len(rows)
    return found


def told(world: World, samples: Samples, ratios: Tensor | None) -> dict[str, Any]:
    """Responses to be read, with what is known of each; `ratios` [B, R]: log pi / pi_sft of their tokens."""
    lengths = samples.sequences.response_mask.sum(1).tolist()
    ids = [row[:end] for row, end in zip(samples.sequences.response_ids.tolist(), lengths, strict=True)]
    found = {
        "texts": list(samples.texts),
        "length": columns.counts(lengths),
        "columns": {name: columns.numbers(values) for name, values in known(world, samples).items()},
    }
    return found if ratios is None else {**found, "tokens": coloured(world.policy, ids, ratios)}


def coloured(policy: Policy, rows: Sequence[Sequence[int]], ratios: Tensor) -> list[list[list[Any]]]:
    """The text of each token with its log pi / pi_sft."""
    return [
        [[piece, round(ratio, 2)] for piece, ratio in zip(pieces(policy, row), values, strict=False)]
        for row, values in zip(rows, ratios.tolist(), strict=True)
    ]


def pieces(policy: Policy, row: Sequence[int]) -> Iterator[str]:
    """The text of each token as it appears in the whole; a character of several tokens stands at its last."""
    before = ""
    for end, after in enumerate(policy.response_texts([row[: end + 1] for end in range(len(row))]), 1):
        if after.endswith(_CUT) and end < len(row):
            yield ""
            continue
        yield after.removeprefix(before)
        before = after


def _or_nan(value: bool | None) -> float:
    return math.nan if value is None else float(value)
