"""Checks of what a policy draws where its reference has a share of every token."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from alignbench.plugins import Component
from alignbench.records import POLICY, REFERENCE, Sequences
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.model_trial import CLOSE, build, few, margin, measured, prompts, tolerance

SHARE, TEMPERATURE = 0.3, 0.8
ROWS = 48
"""Responses to each prompt: many begin alike, and differ in the next token."""
check = CheckList()


@check(
    causes="a share that is not read, or is the other role's; one role's tokens read with the other's weights or cache; or a mixture of "
    "probabilities in place of logits.",
    within=CLOSE,
)
def a_mixture_has_the_share_of_both_roles(component: Component, seed: int) -> str:
    """With reference_share s, log-probabilities of two tokens that came at one place are as far apart as 1 - s times those of the policy and
    s times those of the reference; their sum over tokens, which both have below 1, makes each larger."""
    policy = build(component, seed)
    if not policy.mixes_reference:
        raise NotApplicable("it draws from one role alone")
    sampling = dataclasses.replace(few(policy, TEMPERATURE), reference_share=SHARE)
    rollout = policy.generate(prompts()[:3], sampling, n=ROWS, rng=Seeds(seed).torch("mixture"))
    shown, bound = rollout.samples.sequences, 2 * tolerance(component, seed)
    own, reference = (measured(policy, shown, role=role, temperature=TEMPERATURE) for role in (POLICY, REFERENCE))
    if float((own - reference).abs().max()) <= bound:
        raise NotApplicable("its weights cannot be moved so that both roles differ")
    added = rollout.logprobs - (1 - SHARE) * own - SHARE * reference  # what makes the place's probabilities sum to 1
    gaps = torch.cat([added[rows, column] - added[rows, column].mean() for rows, column in places(shown)])
    if not float(gaps.abs().mean()) <= bound:
        raise PropertyBroken(
            f"With reference_share={SHARE}, tokens at one place are {float(gaps.abs().mean()):.3g} nats away from (1 - s) log pi + s log "
            f"pi_ref on average, {bound:g} allowed."
        )
    least = float(added[shown.response_mask.bool()].min())
    if least < -2 * bound:
        raise PropertyBroken(
            f"With reference_share={SHARE} a token is {-least:.3g} nats less likely than both roles allow."
        )
    return margin(bound, float(gaps.abs().mean()) / bound)


def places(sequences: Sequences) -> list[tuple[Tensor, int]]:
    """(rows, column) of responses that are one until that column, and have more than one token there."""
    rows: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    asked = sequences.prompt_ids.masked_fill(~sequences.prompt_mask.bool(), -1).tolist()
    for row, (ids, length) in enumerate(
        zip(sequences.response_ids.tolist(), sequences.response_mask.sum(1).tolist(), strict=True)
    ):
        for end in range(length):
            rows.setdefault((tuple(asked[row]), tuple(ids[:end])), []).append(row)
    found = [(torch.tensor(each), len(begin)) for (_, begin), each in rows.items()]
    return [(each, at) for each, at in found if len(sequences.response_ids[each, at].unique()) > 1]
