"""Sampling from the mixture of a policy and its reference, token by token."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from alignbench_dpo.sampled.config import NashMDConfig
from alignbench_hf.policy import HFPolicy

from alignbench import POLICY, REFERENCE, Rollout, Sampling, UserError
from alignbench.pipeline.preparation import refuse_mixture
from tests import tiny

SHARE, TEMPERATURE = 0.3, 0.7
KINDS = pytest.mark.parametrize("make", [tiny.scratch, tiny.adapters])
Make = Callable[..., HFPolicy]


def policy_of(make: Make, **options: Any) -> HFPolicy:
    policy = make(**options)
    policy.freeze_reference()
    tiny.move(policy, seed=5)
    return policy


def generate(policy: HFPolicy, sampling: Sampling, role: str = POLICY) -> Rollout:
    return policy.generate(tiny.PROMPTS, sampling, n=4, role=role, rng=torch.Generator().manual_seed(2))


@KINDS
def test_tokens_are_drawn_from_the_mixture(make: Make) -> None:
    """By transformers' own logits of both roles, prompts of different lengths, suppressed tokens left out."""
    policy = policy_of(make, suppress_tokens=["c"])
    rollout = generate(policy, Sampling(temperature=TEMPERATURE, reference_share=SHARE))
    shown = rollout.samples.sequences
    ids = torch.cat([shown.prompt_ids, shown.response_ids], 1)
    mask = torch.cat([shown.prompt_mask, shown.response_mask], 1).long()
    where = (mask.cumsum(1) - 1).clamp(min=0)
    start = shown.prompt_ids.shape[1] - 1
    with torch.no_grad():
        logits = {
            role: policy.as_transformers(role)(input_ids=ids, attention_mask=mask, position_ids=where).logits
            for role in (POLICY, REFERENCE)
        }
    mixed = ((1 - SHARE) * logits[POLICY] + SHARE * logits[REFERENCE]) / TEMPERATURE
    every = torch.log_softmax(mixed, -1)[:, start:-1]
    wanted = every.gather(2, shown.response_ids[..., None]).squeeze(2).masked_fill(~shown.response_mask.bool(), 0.0)
    torch.testing.assert_close(rollout.logprobs, wanted, atol=1e-4, rtol=0)
    own = policy.logprobs(shown, temperature=TEMPERATURE).logprobs.detach()
    assert float((rollout.logprobs - own).abs().max()) > 0.05
    suppressed = policy.tokenizer.convert_tokens_to_ids("c")
    assert not bool((shown.response_ids == suppressed).any())
    assert len(shown.response_mask.sum(1).unique()) > 1


@KINDS
@pytest.mark.parametrize(("share", "role"), [(1e-9, POLICY), (1 - 1e-7, REFERENCE)])
def test_a_share_of_next_to_nothing_draws_what_one_role_draws(make: Make, share: float, role: str) -> None:
    policy = policy_of(make)
    found = generate(policy, Sampling(reference_share=share))
    right = generate(policy, Sampling(), role)
    assert found.samples.texts == right.samples.texts
    assert torch.equal(found.samples.finished, right.samples.finished)
    torch.testing.assert_close(found.logprobs, right.logprobs, atol=1e-4, rtol=0)


def test_what_samples_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained, and in one line; never sampled without the reference."""
    policy = policy_of(tiny.scratch)
    assert policy.mixes_reference
    monkeypatch.setattr(type(policy._sampler), "reads_model", False)
    policy = policy_of(tiny.scratch)
    label = SimpleNamespace(label="nash_md", config=NashMDConfig())
    config: Any = SimpleNamespace(algo=label, model=SimpleNamespace(label="tiny"))
    with pytest.raises(UserError, match=r"algo=nash_md samples a mixture .* model=tiny .*reference_share=0"):
        refuse_mixture(config, policy)
    label.config = NashMDConfig(reference_share=0.0)
    refuse_mixture(config, policy)
    with pytest.raises(UserError, match="no mixture of two roles"):
        generate(policy, Sampling(reference_share=SHARE))
