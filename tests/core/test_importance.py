"""Truncated importance sampling against closed forms in float64, and against what it must leave alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from alignbench_group.config import GRPOConfig, RLOOConfig
from alignbench_group.grpo import GRPO
from alignbench_group.rloo import RLOO
from alignbench_ppo.config import PPOConfig
from alignbench_ppo.ppo import PPO
from torch import Tensor

from alignbench import CorrectedConfig, NonFiniteError, PolicyOptimizer, ScoredRollout, Seeds, UserError, functional
from alignbench.optimization.importance import truncated_weights
from tests import tiny

LETTERS, LENGTH = 3, 3
SIZE = {"updates": 2, "batch_size": 12, "learning_rate": 1e-2, "lr_schedule": "constant"}
ALGORITHMS = {
    "ppo": (PPO, PPOConfig(**SIZE, epochs=2, minibatches=2)),
    "grpo": (GRPO, GRPOConfig(**SIZE, samples_per_prompt=2, epochs=2)),
    "rloo": (RLOO, RLOOConfig(**SIZE, samples_per_prompt=2, epochs=2)),
}


def every_response() -> Tensor:
    """[Y, LENGTH]: every response of LENGTH letters."""
    return torch.cartesian_prod(*[torch.arange(LETTERS)] * LENGTH)


def tables(seed: int) -> tuple[Tensor, Tensor]:
    """log pi and log of the sampler, [LENGTH, LETTERS] float64: of a letter at each place, whatever stood before."""
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.log_softmax(torch.randn(LENGTH, LETTERS, generator=rng).double(), -1) for _ in range(2))  # type: ignore[return-value]


def of_tokens(table: Tensor) -> Tensor:
    """[Y, LENGTH]: the log-probability of each token of every response."""
    return table[torch.arange(LENGTH), every_response()]


@pytest.mark.parametrize("clip", [0.7, 2.0, 1e6])
def test_a_response_counts_as_often_as_the_policy_gives_it_up_to_the_clip(clip: float) -> None:
    """E_sampler[min(pi / q, C) f] = sum over y of min(pi(y), C q(y)) f(y): all responses are written down."""
    policy, sampler = map(of_tokens, tables(1))
    f = torch.randn(len(policy), generator=torch.Generator().manual_seed(2)).double()
    mask = torch.ones(policy.shape, dtype=torch.bool)
    weights = truncated_weights(policy, sampler, mask, level="sequence", clip=clip)
    p, q = policy.sum(1).exp(), sampler.sum(1).exp()
    assert torch.allclose((q * weights[:, 0] * f).sum(), (torch.minimum(p, clip * q) * f).sum(), rtol=1e-12)
    assert torch.equal(weights, weights[:, :1].expand_as(weights)), "one weight a response"
    if clip == 1e6:
        assert torch.allclose((q * weights[:, 0] * f).sum(), (p * f).sum(), rtol=1e-12), "exact without a clip"


def test_a_token_counts_by_itself() -> None:
    """E_sampler[min(pi_t / q_t, C)] at a place is the sum over letters of min(pi, C q), whatever the other places are."""
    (policy, sampler), clip = tables(3), 1.3
    mask = torch.ones(len(every_response()), LENGTH, dtype=torch.bool)
    weights = truncated_weights(of_tokens(policy), of_tokens(sampler), mask, level="token", clip=clip)
    q = of_tokens(sampler).sum(1).exp()
    wanted = torch.minimum(policy.exp(), clip * sampler.exp()).sum(1)
    assert torch.allclose((q[:, None] * weights).sum(0), wanted, rtol=1e-12)


def test_outside_a_response_and_without_correction_a_weight_is_1() -> None:
    policy, sampler = map(of_tokens, tables(4))
    mask = torch.rand(policy.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[0] = False
    assert torch.equal(truncated_weights(policy, sampler, mask, level="none", clip=2.0), torch.ones_like(policy))
    for level in ("token", "sequence"):
        weights = truncated_weights(policy.masked_fill(~mask, math.nan), sampler, mask, level=level, clip=1e6)
        assert bool((weights[~mask] == 1).all()), level
        assert bool((weights[mask] != 1).any()), level
    kept = torch.where(mask, policy - sampler, 0.0).sum(1).exp()
    assert torch.allclose(weights[mask], kept[:, None].expand_as(weights)[mask], rtol=1e-12)


def rollout(noise: float = 0.0, temperature: float = 1.0) -> tuple[ScoredRollout, Tensor]:
    """A batch whose sampler says of each token what the policy says, plus noise; and what the policy says."""
    policy = tiny.scratch()
    batch = tiny.scored(policy, n=2, temperature=temperature)
    sequences = batch.rollout.samples.sequences
    with torch.no_grad():
        own = policy.logprobs(sequences, temperature=temperature).logprobs
    off = noise * torch.randn(own.shape, generator=torch.Generator().manual_seed(5)) * sequences.response_mask
    sampled = dataclasses.replace(batch.rollout, logprobs=own + off, off_policy=True)
    return dataclasses.replace(batch, rollout=sampled), own


@pytest.mark.parametrize("name", ALGORITHMS)
def test_weights_of_exactly_1_leave_every_number_as_it_was(name: str) -> None:
    """Bit for bit: a sampler that says just what the policy says changes nothing."""
    batch, _ = rollout()
    on = dataclasses.replace(batch, rollout=dataclasses.replace(batch.rollout, off_policy=False))
    ends = []
    for given in (on, batch):
        ends.append(updated(name, given))
    (mine, figures), (theirs, others) = ends
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert {key: others[key] for key in figures} == figures
    assert not any(key.startswith(("sampler_", "importance_")) for key in figures), "off where the own loop samples"
    told = {key: others[key] for key in others.keys() - figures.keys()}
    assert told == {
        "sampler_gap": 0.0,
        "sampler_gap_max": 0.0,
        "sampler_kl": 0.0,
        "importance_weight": 1.0,
        "importance_cut": 0.0,
    }


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_sampler_that_is_off_changes_the_update(name: str, level: str) -> None:
    batch, _ = rollout(noise=0.1)
    (corrected, figures), (plain, _) = (updated(name, batch, importance=how) for how in (level, "none"))
    assert any(not torch.equal(a, b) for a, b in zip(corrected, plain, strict=True))
    assert figures["importance_weight"] != 1


def updated(name: str, batch: ScoredRollout, **changes: object) -> tuple[list[Tensor], dict[str, float]]:
    policy = tiny.scratch()
    policy.freeze_reference()
    kind, settings = ALGORITHMS[name]
    settings = dataclasses.replace(settings, **changes)
    algorithm: PolicyOptimizer[ScoredRollout] = kind(settings, policy=policy, updates=2, seeds=Seeds(0))
    report = algorithm.update(batch)
    return [p.detach().clone() for p in policy.trainable()], dict(report.metrics)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_figures_are_what_they_are_called(temperature: float) -> None:
    batch, own = rollout(noise=0.1, temperature=temperature)
    config = CorrectedConfig(importance="token", importance_clip=1.1)
    found = functional.correction(batch.rollout, own, config)
    mask = batch.rollout.samples.sequences.response_mask.bool()
    apart = (own - batch.rollout.logprobs).double()[mask]
    rows = (own - batch.rollout.logprobs).double() * mask
    assert found.figures == pytest.approx(
        {
            "sampler_gap": float(apart.abs().mean()),
            "sampler_gap_max": float(apart.abs().max()),
            "sampler_kl": float((rows.exp() - 1 - rows).sum(1).mean()),
            "importance_weight": float(apart.exp().clamp(max=1.1).mean()),
            "importance_cut": float((apart.exp() >= 1.1).double().mean()),
        },
        rel=1e-5,
    )
    assert 0 < found.figures["importance_cut"] < 1
    whole = functional.correction(batch.rollout, own, dataclasses.replace(config, importance="sequence"))
    assert whole.figures["importance_cut"] == pytest.approx(float((rows.sum(1).exp() >= 1.1).double().mean()))


def test_a_sampler_too_far_away_ends_the_run_in_one_line() -> None:
    batch, own = rollout(noise=1.0)
    with pytest.raises(
        UserError, match=r"nats a token away .* above algo.sampler_gap_limit=0.3.*raise the limit"
    ) as told:
        functional.correction(batch.rollout, own, CorrectedConfig())
    assert "\n" not in str(told.value)
    assert functional.correction(batch.rollout, own, CorrectedConfig(sampler_gap_limit=0)).figures["sampler_gap"] > 0.3
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        functional.correction(batch.rollout, own * math.nan, CorrectedConfig())


def test_unknown_ways_are_refused() -> None:
    with pytest.raises(UserError, match=r"importance 'tokens'.*none, sequence, token"):
        PPOConfig(importance="tokens")
    with pytest.raises(UserError, match="importance_clip"):
        PPOConfig(importance_clip=0)
