"""PPO against the exact optimum of its objective, in a world small enough to write down every response."""

from __future__ import annotations

import itertools

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from alignbench_ppo.config import PPOConfig
from alignbench_ppo.ppo import PPO
from torch import Tensor

from alignbench import REFERENCE, ExactProblem, Sampling, ScoredRollout, Seeds, Sequences
from tests import tiny

TOKENS, VOCABULARY, BATCH = 2, 12, 256
PROMPTS = tiny.PROMPTS[:2]

# Every response: EOS alone, or any other token and then any token.
RESPONSES = [(tiny.EOS,), *itertools.product((t for t in range(VOCABULARY) if t != tiny.EOS), range(VOCABULARY))]


def everything(policy: HFPolicy) -> Sequences:
    """Every response to every prompt, prompt by prompt."""
    size = len(PROMPTS) * len(RESPONSES)
    shown = policy.encode([p for p in PROMPTS for _ in RESPONSES], ["a"] * size).sequences
    ids = torch.tensor([(*r, tiny.PAD)[:TOKENS] for r in RESPONSES]).repeat(len(PROMPTS), 1)
    mask = torch.arange(TOKENS)[None] < torch.tensor([len(r) for r in RESPONSES])[:, None]
    return Sequences(shown.prompt_ids, shown.prompt_mask, ids, mask.repeat(len(PROMPTS), 1))


def distribution(policy: HFPolicy, role: str = "policy") -> Tensor:
    """The probability of every response to every prompt, [prompts, responses]."""
    with torch.no_grad():
        logprobs = policy.logprobs(everything(policy), role=role).logprobs.double().sum(1)
    return logprobs.reshape(len(PROMPTS), -1).exp()


def total_variation(left: Tensor, right: Tensor) -> float:
    """Mean over prompts."""
    return float(0.5 * (left - right).abs().sum(1).mean())


def train(policy: HFPolicy, rewards: Tensor, *, beta: float, updates: int, seed: int) -> None:
    table = torch.zeros(len(PROMPTS), VOCABULARY, VOCABULARY)
    for i, response in enumerate(RESPONSES):
        table[:, response[0], response[1] if len(response) > 1 else tiny.PAD] = rewards[:, i]
    settings = PPOConfig(
        updates=updates,
        batch_size=BATCH,
        micro_batch_size=BATCH,
        learning_rate=4e-3,
        kl_coef=beta,
        epochs=1,
        minibatches=2,
        gae_lambda=1.0,
        clip_value=0.0,
        missing_eos="keep",
    )
    ppo = PPO(settings, policy=policy, updates=updates, seeds=Seeds(seed))
    asked = torch.arange(BATCH) % len(PROMPTS)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        rollout = policy.generate([PROMPTS[i] for i in asked.tolist()], Sampling(), rng=rng)
        ids = rollout.samples.sequences.response_ids
        ppo.update(ScoredRollout(rollout, table[asked, ids[:, 0], ids[:, 1]]))


def test_ppo_reaches_the_exact_optimum(seed: int = 0) -> None:
    """pi*(y|x) = pi_ref(y|x) exp(r(x, y) / beta) / Z(x), for rewards of sd 1 and beta = 1, in total variation.

    Over seeds 0, 1, 2 the distance falls from 0.29-0.33 to 0.031-0.039. It tells coefficients apart: from the optima of
    half and of twice this one the trained policy is 0.14-0.31 away."""
    policy = tiny.scratch(seed, max_response_tokens=TOKENS, num_layers=1, hidden_size=32, intermediate_size=64)
    policy.freeze_reference()
    reference = distribution(policy, REFERENCE)
    torch.testing.assert_close(reference.sum(1), torch.ones(len(PROMPTS)).double(), rtol=1e-5, atol=0)
    rewards = torch.randn(reference.shape, generator=torch.Generator().manual_seed(seed))
    half, optimum, twice = (torch.softmax(reference.log() + rewards / beta, 1) for beta in (0.5, 1.0, 2.0))
    assert total_variation(reference, optimum) > 0.25

    train(policy, rewards, beta=1.0, updates=120, seed=seed)
    trained = distribution(policy)
    assert total_variation(trained, optimum) < 0.07
    assert min(total_variation(trained, half), total_variation(trained, twice)) > 0.1


@pytest.mark.parametrize(
    "changes, known",
    [
        ({}, True),
        ({"gae_lambda": 0.5, "epochs": 2}, True),
        ({"gamma": 0.9}, False),
        ({"whiten_rewards": True}, False),
        ({"kl_target": 6.0}, False),
        ({"kl_coef": 0.0}, False),
        ({"temperature": 0.5}, False),
        ({"kl_in": "loss"}, True),
        ({"kl_in": "loss", "kl_estimator": "k3"}, False),
        ({"kl_estimator": "k3"}, True),
        ({"value_warmup": 5, "gae_lambda_value": 1.0, "length_adaptive_lambda": 0.05}, True),
    ],
)
@pytest.mark.parametrize("rule", ["keep", "subtract", "replace"])
def test_its_optimum_is_that_of_the_penalised_reward(changes: dict[str, object], known: bool, rule: str) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.softmax(torch.randn(2, len(RESPONSES), generator=generator, dtype=torch.float64), 1)
    rewards = torch.randn(reference.shape, generator=generator, dtype=torch.float64)
    settings = PPOConfig(**({"kl_coef": 0.3, "missing_eos": rule, "missing_eos_penalty": 2.0} | changes))
    found = PPO.optimum(settings, ExactProblem(tuple(RESPONSES), reference, rewards))
    assert (found is not None) == known
    if found is not None:
        cut = torch.tensor([response[-1] != tiny.EOS for response in RESPONSES])
        shaped = {"keep": rewards, "subtract": rewards - 2.0 * cut, "replace": torch.where(cut, -2.0, rewards)}[rule]
        weights = reference * torch.exp(shaped / 0.3)
        torch.testing.assert_close(found, weights / weights.sum(1, keepdim=True))
