"""What the value network learns and when: pretraining, and a lambda of its own or of each response."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from alignbench_ppo.config import PPOConfig
from alignbench_ppo.ppo import PPO, Experience, gae, policy_lambda
from torch import Tensor

from alignbench import Policy, ScoredRollout, Seeds, UserError
from alignbench.pipeline.training import train
from alignbench.plugins import resolve
from alignbench.testing.trial import Trial
from alignbench.testing.world import World
from tests import tiny


def config(**changes: object) -> PPOConfig:
    return PPOConfig(**({"updates": 6, "batch_size": 12, "learning_rate": 1e-2, "epochs": 2} | changes))


def started(settings: PPOConfig, **model: object) -> tuple[HFPolicy, PPO]:
    policy = tiny.scratch(**model)
    policy.freeze_reference()
    tiny.move(policy, scale=0.03)
    return policy, build(policy, settings)


def build(policy: Policy, settings: PPOConfig) -> PPO:
    return PPO(settings, policy=policy, updates=settings.updates, seeds=Seeds(0))


def weights(ppo: PPO, policy: HFPolicy) -> tuple[Tensor, Tensor]:
    """Of the policy and of the value network."""
    return (
        torch.cat([p.detach().flatten().clone() for p in policy.trainable()]),
        torch.cat([p.detach().flatten().clone() for p in ppo._value.parameters()]),
    )


def learnt_from(ppo: PPO, batch: ScoredRollout) -> Experience:
    """What an update would learn from."""
    found: list[Experience] = []
    ppo._optimise = lambda experience: found.append(experience) or {}  # type: ignore[method-assign,func-returns-value]
    ppo.update(batch)
    return found[0]


def test_what_does_nothing_moves_nothing_by_a_bit() -> None:
    """The options at their neutral values give the defaults' updates."""
    outcomes = []
    neutral = {"value_warmup": 0, "gae_lambda_value": 0.95, "length_adaptive_lambda": 0.0, "kl_estimator": "k3"}
    for changes in ({}, neutral):
        policy, ppo = started(config(**changes))
        metrics = [dict(ppo.update(tiny.scored(policy, seed=seed)).metrics) for seed in range(2)]
        outcomes.append((metrics, *weights(ppo, policy)))
    assert outcomes[0][0] == outcomes[1][0]
    assert torch.equal(outcomes[0][1], outcomes[1][1]) and torch.equal(outcomes[0][2], outcomes[1][2])


# Lambda


def test_a_lambda_for_each_length() -> None:
    mask = torch.arange(300)[None] < torch.tensor([1, 20, 25, 300])[:, None]
    found = policy_lambda(config(length_adaptive_lambda=0.05), mask)
    assert isinstance(found, Tensor)
    assert found.tolist() == pytest.approx([0, 0, 0.2, 1 - 1 / 15], abs=1e-6)
    assert policy_lambda(config(), mask) == 0.95


def test_each_response_has_its_own_lambda_in_gae() -> None:
    draw = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 3, 5, generator=draw, dtype=torch.float64)
    mask = torch.arange(5)[None] < torch.tensor([5, 2, 4])[:, None]
    lam = torch.tensor([0.9, 0.0, 0.4], dtype=torch.float64)
    found = gae(rewards, values, mask, gamma=0.9, lam=lam)
    for row, own in enumerate(lam.tolist()):
        alone = gae(*(part[row : row + 1] for part in (rewards, values, mask)), gamma=0.9, lam=own)
        for together, one in zip(found, alone, strict=True):
            torch.testing.assert_close(together[row : row + 1], one)


def test_the_value_network_learns_returns_of_its_own_lambda() -> None:
    """With lambda 1 what followed a token, whatever the values; the advantages stay as they are."""
    changes = {"whiten_advantages": False, "kl_coef": 0.0, "missing_eos": "keep", "gae_lambda": 0.5}
    policy, ppo = started(config(**changes))
    batch = tiny.scored(policy)
    with torch.no_grad():  # a fresh value network reads zero
        ppo._value.head.read.weight.fill_(0.1)
    plain = learnt_from(ppo, batch)
    policy, other = started(config(**changes, gae_lambda_value=1.0))
    with torch.no_grad():
        other._value.head.read.weight.fill_(0.1)
    decoupled = learnt_from(other, batch)
    assert torch.equal(plain.advantages, decoupled.advantages)
    mask = batch.rollout.samples.sequences.response_mask
    scores = batch.scores[:, None].expand(mask.shape)
    torch.testing.assert_close(decoupled.returns[mask], scores[mask], rtol=1e-4, atol=1e-5)
    assert float((plain.returns - scores)[mask].abs().max()) > 0.1


def test_advantages_follow_the_lambda_of_their_length() -> None:
    changes = {"whiten_advantages": False, "kl_coef": 0.0, "missing_eos": "keep", "gae_lambda": 0.5}
    policy, ppo = started(config(**changes, length_adaptive_lambda=0.5))
    with torch.no_grad():
        ppo._value.head.read.weight.fill_(0.1)
    batch = tiny.scored(policy)
    found = learnt_from(ppo, batch)
    lengths = batch.rollout.samples.sequences.response_mask.sum(1).tolist()
    assert len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        lam, v = max(0.0, 1 - 1 / (0.5 * length)), found.values[row].tolist()
        wanted, following = [], 0.0
        for t in reversed(range(length)):
            delta = (float(batch.scores[row]) if t == length - 1 else v[t + 1]) - v[t]
            following = delta + lam * following
            wanted.insert(0, following)
        assert found.advantages[row, :length].tolist() == pytest.approx(wanted, abs=1e-5)
    # the returns keep gae_lambda
    assert torch.equal(found.returns, learnt_from(build_like(ppo, policy, changes), batch).returns)


def build_like(ppo: PPO, policy: HFPolicy, changes: dict[str, object]) -> PPO:
    """PPO without the length, with the same value network."""
    other = PPO.__new__(PPO)
    other.__dict__.update(ppo.__dict__)
    other._config = config(**changes)
    return other


# Pretraining


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_the_policy_stands_still_while_the_value_network_is_pretrained(trunk: str) -> None:
    policy, ppo = started(config(value_warmup=2, updates=6, lr_schedule="linear"), value_trunk=trunk)
    start, rates = weights(ppo, policy), []
    for update in range(5):
        before = weights(ppo, policy)
        report = ppo.update(tiny.scored(policy, seed=update))
        after = weights(ppo, policy)
        assert torch.equal(before[0], after[0]) == (update < 2)
        assert not torch.equal(before[1], after[1])
        assert report.optimizer_steps == 2
        rates.append(report.metrics["learning_rate"])
        assert {"value_loss", "value_gradient_norm", "explained_variance", "reward", "kl"} <= set(report.metrics)
        assert ("policy_loss" in report.metrics) == (update >= 2)
    # the schedule is that of the policy's own four updates
    assert rates == pytest.approx([0, 0, 1e-2, 0.75e-2, 0.5e-2])
    assert not torch.equal(start[0], weights(ppo, policy)[0])


def test_after_it_the_policys_steps_are_those_of_a_run_without_it() -> None:
    """From the same value network: nothing of its optimizer is left, and neither schedule nor controller has gone on."""
    changes = {"kl_target": 0.5, "kl_horizon": 24.0, "clip_value": 0.0, "epochs": 1}
    policy, ppo = started(config(value_warmup=2, updates=6, **changes))
    for seed in range(2):
        ppo.update(tiny.scored(policy, seed=seed))
    other, plain = started(config(updates=4, **changes))
    with torch.no_grad():
        for mine, theirs in zip(plain._value.parameters(), ppo._value.parameters(), strict=True):
            mine.copy_(theirs)
    for seed in range(2, 4):
        one, two = (p.update(tiny.scored(q, seed=seed)).metrics for p, q in ((ppo, policy), (plain, other)))
        assert one["kl_coef"] == two["kl_coef"] and one["learning_rate"] == two["learning_rate"]
        # rows are shuffled otherwise
        assert one["policy_loss"] == pytest.approx(two["policy_loss"], abs=1e-5)
    assert float((weights(ppo, policy)[0] - weights(plain, other)[0]).abs().max()) < 1e-4


def test_pretrained_values_are_the_expected_scores() -> None:
    """In a world that is written down: before the first token, V(x) = E[r(x, y)], from values that say something else."""
    settings = dataclasses.replace(
        PPOConfig(), updates=61, value_warmup=60, batch_size=512, micro_batch_size=512, epochs=1,
        learning_rate=0.05, missing_eos="keep", adam_eps=1e-5,
    )  # fmt: skip
    world = World(0, prompts=2, tokens=2)
    trial = Trial(resolve("ppo"), 0, world=world, moved=0.0, config=settings)
    exact = (world.problem.reference * world.problem.rewards).sum(1)
    values = trial.policy.role("value").table.detach()
    assert float((values[:, 0].double() - exact).abs().max()) > 0.3
    explained = [trial.update().metrics["explained_variance"] for _ in range(60)]
    assert float((values[:, 0].double() - exact).abs().max()) < 0.12
    assert explained[-1] > explained[0] + 0.15
    assert float(trial.moved().abs().max()) == 0
    trial.update()
    assert float(trial.moved().abs().max()) > 0


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_restored_run_goes_on_bit_for_bit(done: int) -> None:
    """Stopped in the middle of the pretraining, at its end, and after it."""
    settings = config(value_warmup=2, minibatches=2)
    policy, ppo = started(settings)
    for seed in range(done):
        ppo.update(tiny.scored(policy, seed=seed))
    file = io.BytesIO()
    torch.save(ppo.state_dict(), file)
    kept = [p.detach().clone() for p in policy.trainable()]
    batches = [tiny.scored(policy, seed=9), tiny.scored(policy, seed=10)]
    reports = [dict(ppo.update(batch).metrics) for batch in batches]
    other, restored = started(settings)
    with torch.no_grad():
        for parameter, value in zip(other.trainable(), kept, strict=True):
            parameter.copy_(value)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert [dict(restored.update(batch).metrics) for batch in batches] == reports
    for mine, theirs in zip(weights(restored, other), weights(ppo, policy), strict=True):
        assert torch.equal(mine, theirs)


def test_its_samples_are_counted_and_its_updates_recorded() -> None:
    policy, ppo = started(config(value_warmup=2, updates=3))
    batches = [tiny.scored(policy, seed=seed) for seed in range(3)]
    told: list[tuple[int, float]] = []

    def step(stage: str, update: int, updates: int, metrics: dict[str, float], *_: object) -> None:
        told.append((update, metrics["value_loss"]))

    done = train("ppo", ppo, lambda start: batches[start:], policy=policy, updates=3, step=step)  # type: ignore[arg-type]
    assert (done.samples, done.updates, done.optimizer_steps) == (36, 3, 6)
    assert [update for update, _ in told] == [1, 2, 3]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"value_warmup": 6}, "leaves none of 6 updates for the policy"),
        ({"value_warmup": -1}, "value_warmup"),
        ({"gae_lambda_value": 1.5}, "gae_lambda_value"),
        ({"length_adaptive_lambda": -0.1}, "length_adaptive_lambda"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**changes)


def test_a_budget_that_ends_before_the_policys_first_update_is_refused() -> None:
    policy = tiny.scratch()
    with pytest.raises(UserError, match=r"value_warmup=5 leaves none of 5 updates .* budget\.samples"):
        PPO(config(value_warmup=5), policy=policy, updates=5, seeds=Seeds(0))
