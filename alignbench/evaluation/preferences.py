"""How likely held-out rankings' responses are to a policy and to its reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alignbench import functional
from alignbench.contracts import Policy
from alignbench.contracts.subject import MeasuredRanking
from alignbench.records import REFERENCE, Message, Prompt, Ranking

Response = tuple[tuple[Message, ...], str, bool]
"""A conversation, what answers it, and whether that ended by itself."""


def measured(policy: Policy, rankings: Sequence[Ranking], *, reference: bool) -> tuple[MeasuredRanking, ...]:
    """Cut at the policy's limits, as what is learnt from. A response that several people ranked is read once. Without `reference`
    it is not asked: the policy is the reference."""
    if not rankings:
        return ()
    rows: dict[Response, int] = {}
    prompts: list[Prompt] = []
    places: list[list[int]] = []
    for ranking in rankings:
        ends = ranking.finished or (True,) * len(ranking.responses)
        places.append([])
        for text, end in zip(ranking.responses, ends, strict=True):
            places[-1].append(rows.setdefault((ranking.prompt.messages, text, end), len(rows)))
            if len(rows) > len(prompts):
                prompts.append(ranking.prompt)
    texts, finished = [text for _, text, _ in rows], [end for _, _, end in rows]
    sequences = policy.encode(prompts, texts, finished=finished).sequences
    with torch.no_grad():
        own = functional.summed_logprobs(policy, sequences).tolist()
        ref = functional.summed_logprobs(policy, sequences, role=REFERENCE).tolist() if reference else []
    tokens = sequences.response_mask.sum(1).tolist()
    return tuple(
        MeasuredRanking(
            ranking,
            tuple(own[i] for i in found),
            tuple(ref[i] for i in found) if reference else (),
            tuple(tokens[i] for i in found),
        )
        for ranking, found in zip(rankings, places, strict=True)
    )
