"""Rejection sampling: which responses it learns from, its update, its optimum."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from alignbench_selection.config import RejectionSamplingConfig
from alignbench_selection.rejection import RejectionSampling, best_rows
from omegaconf import OmegaConf

from alignbench import (
    POLICY,
    REFERENCE,
    ExactProblem,
    NonFiniteError,
    RewardSource,
    Samples,
    ScoredRollout,
    Seeds,
    UserError,
)
from alignbench.functional import best_of_n
from alignbench.pipeline.experience import rollout_batches
from tests import tiny

K = 3


def config(**changes: object) -> RejectionSamplingConfig:
    size = {"updates": 4, "batch_size": K * len(tiny.PROMPTS), "samples_per_prompt": K, "learning_rate": 1e-2}
    return RejectionSamplingConfig(**(size | {"lr_schedule": "constant"} | changes))


def started(settings: RejectionSamplingConfig) -> tuple[HFPolicy, RejectionSampling]:
    policy = tiny.scratch()
    policy.freeze_reference()
    return policy, RejectionSampling(settings, policy=policy, updates=settings.updates, seeds=Seeds(0))


def test_the_first_of_the_best_of_each_group() -> None:
    assert best_rows(torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 5.0], [0.0, 0.0, 0.0]])).tolist() == [1, 3, 6]


def test_an_update_is_that_of_a_float64_reference() -> None:
    """The loss is the sum over a response's tokens, averaged over the best responses: nothing else is learnt from."""
    settings = config(temperature=0.7)  # of sampling; imitation is of the model itself
    policy, algorithm = started(settings)
    model = copy.deepcopy(policy._roles.use("policy")).double()
    for p in model.parameters():
        p.requires_grad_(True)
    batch = tiny.scored(policy, n=K)
    s = batch.rollout.samples.sequences
    loss, rewards = torch.zeros((), dtype=torch.float64), []
    for start in range(0, len(batch.scores), K):
        best = max(range(start, start + K), key=lambda i: float(batch.scores[i]))
        prompt, tokens = s.prompt_ids[best][s.prompt_mask[best]], s.response_ids[best][s.response_mask[best]]
        logits = model(input_ids=torch.cat([prompt, tokens])[None]).logits[0, len(prompt) - 1 : -1]
        loss = loss - torch.log_softmax(logits, -1)[range(len(tokens)), tokens].sum() / len(tiny.PROMPTS)
        rewards.append(float(batch.scores[best]))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    metrics = algorithm.update(batch).metrics
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    assert metrics["reward"] == pytest.approx(float(batch.scores.mean()))
    assert metrics["best_reward"] == pytest.approx(sum(rewards) / len(rewards))
    for mine, theirs, g in zip(policy.trainable(), model.parameters(), gradients, strict=True):
        # Adam's first step: the clipped gradient over its size.
        step = g * min(1.0, 1.0 / norm)
        expected = theirs.detach() - 1e-2 * step / (step.abs() + settings.adam_eps)
        torch.testing.assert_close(mine.detach().double(), expected, atol=2e-4, rtol=1e-3)


def test_losers_are_not_learnt_from() -> None:
    """Other tokens in every response but the best of its group change nothing."""
    outcomes = []
    for changed in (False, True):
        policy, algorithm = started(config())
        batch = tiny.scored(policy, n=K)
        s = batch.rollout.samples.sequences
        losers = torch.ones(len(s), dtype=torch.bool)
        losers[best_rows(batch.scores.reshape(-1, K))] = False
        ids = torch.where(losers[:, None] & s.response_mask & changed, 5, s.response_ids)
        samples = dataclasses.replace(batch.rollout.samples, sequences=dataclasses.replace(s, response_ids=ids))
        algorithm.update(ScoredRollout(dataclasses.replace(batch.rollout, samples=samples), batch.scores))
        outcomes.append([p.detach().clone() for p in policy.trainable()])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_a_bad_score_stops_before_the_step() -> None:
    policy, algorithm = started(config())
    batch = tiny.scored(policy, n=K)
    batch.scores[0] = math.inf
    with pytest.raises(NonFiniteError, match="the reward"):
        algorithm.update(batch)


class Recording(RewardSource):
    def __init__(self) -> None:
        self.sampled: list[Samples] = []

    def score(self, samples: Samples) -> torch.Tensor:
        self.sampled.append(samples)
        return torch.zeros(len(samples))


@pytest.mark.parametrize("who", [REFERENCE, POLICY])
def test_who_is_sampled_is_the_configs_choice(who: str) -> None:
    policy = tiny.scratch()
    policy.freeze_reference()
    tiny.move(policy, scale=1.0)
    reward, settings = Recording(), config(samples_from=who)
    options = {"updates": 1, "seeds": Seeds(0)}
    (batch,) = rollout_batches(policy, reward, tiny.PROMPTS, settings, **options)
    s = batch.rollout.samples.sequences
    with torch.no_grad():
        own = {role: policy.logprobs(s, role=role).logprobs for role in (REFERENCE, POLICY)}
    torch.testing.assert_close(batch.rollout.logprobs, own[who], atol=1e-4, rtol=1e-4)
    assert float((own[REFERENCE] - own[POLICY]).abs().max()) > 0.1


def test_samples_from_is_a_field_that_users_set() -> None:
    node = OmegaConf.merge(OmegaConf.structured(RejectionSamplingConfig), {"samples_from": "policy"})
    assert OmegaConf.to_object(node).samples_from == POLICY
    assert RejectionSamplingConfig().samples_from == REFERENCE


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"samples_from": "polcy"}, "Unknown algo.samples_from 'polcy'. Did you mean 'policy'"),
        ({"samples_per_prompt": 1}, "must be 2 to"),
        ({"batch_size": 7}, "must be a multiple"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**changes)


def test_the_optimum_is_best_of_n_of_the_reference() -> None:
    reference = torch.tensor([[0.5, 0.3, 0.2]]).double()
    world = ExactProblem(((4,), (5,), (6,)), reference, torch.tensor([[0.0, 1.0, 2.0]]).double())
    found = RejectionSampling.optimum(config(), world)
    assert torch.equal(found, best_of_n(reference, world.rewards, K))
    assert RejectionSampling.optimum(config(samples_from=POLICY), world) is None
    assert RejectionSampling.optimum(config(temperature=0.5), world) is None
