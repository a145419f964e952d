"""Whole updates of PPO on a policy of a few thousand weights."""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from alignbench_hf.policy import HFPolicy
from alignbench_ppo.config import PPOConfig
from alignbench_ppo.ppo import PPO
from torch import Tensor

from alignbench import NonFiniteError, Policy, ScoredRollout, Seeds, UserError, functional
from tests import tiny


def config(**changes: object) -> PPOConfig:
    return PPOConfig(**({"updates": 4, "batch_size": 12, "learning_rate": 1e-2, "lr_schedule": "constant"} | changes))


def build(policy: Policy, settings: PPOConfig) -> PPO:
    return PPO(settings, policy=policy, updates=settings.updates, seeds=Seeds(0))


def started(settings: PPOConfig, make: Callable[..., HFPolicy] = tiny.scratch, **model: object) -> tuple[HFPolicy, PPO]:
    """A policy that has moved away from its reference, and PPO on it."""
    policy = make(**model)
    policy.freeze_reference()
    tiny.move(policy, scale=0.03)
    return policy, build(policy, settings)


def weights(policy: HFPolicy) -> list[Tensor]:
    return [p.detach().clone() for p in policy.trainable()]


def apart(left: list[Tensor], right: list[Tensor]) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(left, right, strict=True))


# The reference: one update in float64, a response at a time, without padding


@dataclass
class Response:
    prompt: list[int]
    tokens: list[int]
    score: float
    finished: bool


def responses(batch: ScoredRollout) -> list[Response]:
    s = batch.rollout.samples.sequences
    return [
        Response(s.prompt_ids[i][s.prompt_mask[i]].tolist(), s.response_ids[i][s.response_mask[i]].tolist(), score, end)
        for i, (score, end) in enumerate(
            zip(batch.scores.tolist(), batch.rollout.samples.finished.tolist(), strict=True)
        )
    ]


class ReferencePPO:
    """PPO of arXiv 1707.06347 with the rewards of arXiv 2203.02155, in float64 and loops, with its own Adam.

    Full batches only. Models are plain transformers modules; V(s) = w . h + b on the last hidden state."""

    def __init__(self, settings: PPOConfig, policy: HFPolicy, optimizer: PPO) -> None:
        self.settings, self.beta = settings, settings.kl_coef
        self.policy, self.ref, self.value = (
            copy.deepcopy(policy._roles.use(role)).double() for role in ("policy", "reference", "value")
        )
        self.head = copy.deepcopy(optimizer._value.head).double()
        self.groups = [list(self.policy.parameters()), [*self.value.parameters(), *self.head.parameters()]]
        for parameter in [p for group in self.groups for p in group]:
            parameter.requires_grad_(True)
        self.first = [[torch.zeros_like(p) for p in group] for group in self.groups]
        self.second = [[torch.zeros_like(p) for p in group] for group in self.groups]
        self.steps = 0

    def logits(self, model: torch.nn.Module, r: Response) -> Tensor:
        ids = torch.tensor([r.prompt + r.tokens])
        return model(input_ids=ids).logits[0, len(r.prompt) - 1 : -1] / self.settings.temperature

    def logprobs(self, model: torch.nn.Module, r: Response) -> Tensor:
        logits = self.logits(model, r)
        return torch.stack([logits[t, token] - logits[t].exp().sum().log() for t, token in enumerate(r.tokens)])

    def values(self, r: Response) -> Tensor:
        hidden = self.value.model(input_ids=torch.tensor([r.prompt + r.tokens])).last_hidden_state[0]
        return (hidden @ self.head.read.weight[0] + self.head.read.bias)[len(r.prompt) - 1 : -1]

    def update(self, batch: list[Response]) -> dict[str, float]:
        c = self.settings
        with torch.no_grad():
            old = [self.logprobs(self.policy, r).tolist() for r in batch]
            ref = [self.logprobs(self.ref, r).tolist() for r in batch]
            values = [self.values(r).tolist() for r in batch]
            entropy = []
            for r in batch:
                p = torch.softmax(self.logits(self.policy, r), -1)
                entropy += (-(p * p.log()).sum(-1)).tolist()
        scores = [r.score if r.finished else r.score - c.missing_eos_penalty for r in batch]
        kls = [sum(p - q for p, q in zip(ps, qs, strict=True)) for ps, qs in zip(old, ref, strict=True)]

        advantages, returns = [], []
        for ps, qs, vs, score in zip(old, ref, values, scores, strict=True):
            rewards = [-self.beta * (p - q) for p, q in zip(ps, qs, strict=True)]
            rewards[-1] += score
            row: list[float] = []
            for t in reversed(range(len(rewards))):
                after = vs[t + 1] if t + 1 < len(vs) else 0.0
                error = rewards[t] + c.gamma * after - vs[t]
                row.insert(0, error + c.gamma * c.gae_lambda * (row[0] if row else 0.0))
            advantages.append(row)
            returns.append([a + v for a, v in zip(row, vs, strict=True)])
        flat = np.concatenate([np.array(row) for row in advantages])
        explained = 1 - np.var(np.concatenate(returns) - np.concatenate(values)) / np.var(np.concatenate(returns))
        white = [[(a - flat.mean()) / math.sqrt(flat.var() + 1e-8) for a in row] for row in advantages]

        measured = [self.step(batch, old, values, white, returns, len(flat)) for _ in range(c.epochs)]
        return {
            "reward": float(np.mean([r.score for r in batch])),
            "objective": float(np.mean([s - self.beta * kl for s, kl in zip(scores, kls, strict=True)])),
            "kl": float(np.mean(kls)),
            "entropy": float(np.mean(entropy)),
            "length": float(np.mean([len(r.tokens) for r in batch])),
            "eos_rate": float(np.mean([r.finished for r in batch])),
            "explained_variance": float(explained),
            **{name: float(np.mean([m[name] for m in measured])) for name in measured[0]},
        }

    def step(self, batch, old, values, advantages, returns, tokens: int) -> dict[str, float]:  # type: ignore[no-untyped-def]
        c = self.settings
        policy_loss = value_loss = torch.zeros((), dtype=torch.float64)
        clipped = value_clipped = 0
        drift = 0.0
        for i, r in enumerate(batch):
            new, v = self.logprobs(self.policy, r), self.values(r)
            for t in range(len(r.tokens)):
                ratio, a = (new[t] - old[i][t]).exp(), advantages[i][t]
                bounded = ratio.clamp(1 - c.clip_ratio, 1 + c.clip_ratio)
                policy_loss = policy_loss - torch.minimum(ratio * a, bounded * a) / tokens
                clipped += int((bounded * a).detach() < (ratio * a).detach())
                drift += float(ratio.detach()) - 1 - float(new[t].detach() - old[i][t])
                near = v[t].clamp(values[i][t] - c.clip_value, values[i][t] + c.clip_value)
                plain_error, near_error = (v[t] - returns[i][t]) ** 2, (near - returns[i][t]) ** 2
                value_loss = value_loss + 0.5 * torch.maximum(plain_error, near_error) / tokens
                value_clipped += int(near_error.detach() > plain_error.detach())
        norms = []
        self.steps += 1
        value_rate = c.learning_rate if c.value_learning_rate is None else c.value_learning_rate
        for group, rate, loss, first, second in zip(
            self.groups, (c.learning_rate, value_rate), (policy_loss, value_loss), self.first, self.second, strict=True
        ):
            gradients = torch.autograd.grad(loss, group, allow_unused=True)
            gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(group, gradients, strict=True)]
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
            norms.append(norm)
            shrink = min(1.0, c.max_grad_norm / norm)
            with torch.no_grad():
                for p, g, m, s in zip(group, gradients, first, second, strict=True):
                    m.mul_(0.9).add_(0.1 * shrink * g)
                    s.mul_(0.999).add_(0.001 * (shrink * g) ** 2)
                    speed = (s / (1 - 0.999**self.steps)).sqrt() + c.adam_eps
                    p -= rate * (m / (1 - 0.9**self.steps)) / speed
        return {
            "policy_loss": float(policy_loss.detach()),
            "value_loss": float(value_loss.detach()),
            "clip_fraction": clipped / tokens,
            "value_clip_fraction": value_clipped / tokens,
            "approx_kl": drift / tokens,
            "policy_gradient_norm": norms[0],
            "value_gradient_norm": norms[1],
        }


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 1},
        {"epochs": 3, "kl_coef": 0.5, "gae_lambda": 0.5, "gamma": 0.9, "clip_ratio": 0.05, "clip_value": 0.05},
        {
            "epochs": 2,
            "temperature": 0.7,
            "max_grad_norm": 0.1,
            "missing_eos_penalty": 3.0,
            "value_learning_rate": 2e-3,
        },
    ],
)
def test_updates_are_those_of_a_float64_reference(changes: dict[str, float]) -> None:
    """Two updates in a row: every metric, and every weight of policy and value network after them."""
    settings = config(**changes)
    policy, ppo = started(settings)
    reference = ReferencePPO(settings, policy, ppo)
    for seed in range(2):
        batch = tiny.scored(policy, seed=seed, temperature=settings.temperature)
        assert 0 < float(batch.rollout.samples.finished.float().mean()) < 1, "both ways to end should be seen"
        report = ppo.update(batch)
        expected = reference.update(responses(batch))
        for name, value in expected.items():
            assert report.metrics[name] == pytest.approx(value, rel=1e-3, abs=2e-5), name
        assert report.metrics["kl_coef"] == settings.kl_coef
        assert report.metrics["learning_rate"] == settings.learning_rate
    assert set(report.metrics) == {*expected, "kl_coef", "learning_rate"}
    own = [policy.trainable(), ppo._value.parameters()]
    for mine, theirs in zip(own, reference.groups, strict=True):
        assert apart([p.double() for p in mine], theirs) < 2e-4, "after steps of 1e-2 in every weight"


# Steps


@pytest.mark.parametrize("epochs, minibatches, micro", [(1, 1, 64), (4, 1, 5), (1, 3, 64), (2, 4, 2), (3, 12, 1)])
def test_steps_are_epochs_times_minibatches(
    epochs: int, minibatches: int, micro: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: (steps.append(1), step(self))[1])
    policy, ppo = started(config(epochs=epochs, minibatches=minibatches, micro_batch_size=micro))
    for update in range(2):
        before, steps[:] = weights(policy), []
        report = ppo.update(tiny.scored(policy, seed=update))
        assert len(steps) == report.optimizer_steps == epochs * minibatches
        assert apart(before, weights(policy)) > 1e-4


@pytest.mark.parametrize("micro", [1, 5, 12])
def test_micro_batches_change_memory_only(micro: int) -> None:
    settings = config(epochs=2, minibatches=2)
    outcomes = []
    for size in (64, micro):
        policy, ppo = started(dataclasses.replace(settings, micro_batch_size=size))
        report = ppo.update(tiny.scored(policy))
        outcomes.append((dict(report.metrics), weights(policy), [p.detach().clone() for p in ppo._value.parameters()]))
    (metrics, policy_weights, value_weights), (expected, expected_policy, expected_value) = outcomes
    assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert apart(policy_weights, expected_policy) < 1e-4
    assert apart(value_weights, expected_value) < 1e-4


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(functools.partial(tiny.scratch, scalar_head="evidence"), id="copies"),
        pytest.param(functools.partial(tiny.adapters, gradient_checkpointing=True), id="adapters, checkpointing"),
    ],
)
def test_a_value_that_reads_the_policys_states_takes_part_in_its_pass(
    make: Callable[..., HFPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass forward a micro-batch gives the update of two."""
    outcomes, settings = [], config(epochs=2, minibatches=2, micro_batch_size=5)
    measure, passes = HFPolicy._states, []
    monkeypatch.setattr(HFPolicy, "_states", lambda *given: passes.append(torch.is_grad_enabled()) or measure(*given))
    for together in (True, False):
        policy, ppo = started(settings, make, value_trunk="shared")
        assert ppo._value.reads_policy
        if not together:
            monkeypatch.setattr(
                policy, "logprobs_and_values", functools.partial(Policy.logprobs_and_values, policy), raising=True
            )
        passes.clear()
        report = ppo.update(tiny.scored(policy))
        assert sum(passes) == (1 if together else 2) * 2 * 2 * 2  # of epochs, minibatches and micro-batches
        outcomes.append((dict(report.metrics), [*weights(policy), *(p.detach() for p in ppo._value.parameters())]))
    (metrics, one), (expected, other) = outcomes
    assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert apart(one, other) < 1e-4


def test_each_role_is_clipped_on_its_own_on_a_trunk_that_they_share() -> None:
    """However large the value's gradient is, the policy's part of the step stays what it is without it."""
    found, norms = {}, {}
    limit, rate, eps = 1e-3, 100.0, 1e3  # one step in proportion to the gradient, of rate / eps of it
    for coef in (0.0, 10.0, 1000.0):
        settings = config(epochs=1, value_coef=coef, adam_eps=eps, max_grad_norm=limit, learning_rate=rate)
        policy, ppo = started(settings, value_trunk="shared")
        with torch.no_grad():
            ppo._value.head.read.weight.fill_(0.1)
        before = weights(policy)
        metrics = ppo.update(tiny.scored(policy)).metrics
        norms[coef] = metrics["policy_gradient_norm"], metrics["value_gradient_norm"]
        moved = torch.cat([(a - b).flatten() for a, b in zip(weights(policy), before, strict=True)])
        found[coef] = moved.double() * eps / rate
    assert norms[1000.0][0] == pytest.approx(norms[0.0][0])
    assert norms[1000.0][1] == pytest.approx(100 * norms[10.0][1], rel=1e-4) and norms[10.0][1] > limit
    assert float(found[0.0].norm()) == pytest.approx(limit, rel=0.05)
    of_value = [found[coef] - found[0.0] for coef in (10.0, 1000.0)]
    assert all(0.5 * limit < float(part.norm()) <= 1.05 * limit for part in of_value)
    assert float((of_value[1] - of_value[0]).norm()) < 0.1 * limit


def test_the_value_coefficient_weighs_one_loss_on_the_policys_own_trunk() -> None:
    """There it decides how much of the policy's step is the value's; elsewhere it is not read: a factor would do nothing."""
    found = {}
    for trunk in ("own", "shared"):
        for coef in (0.0, 0.1, 10.0):
            # One step in proportion to the gradient.
            settings = config(epochs=1, value_coef=coef, adam_eps=1e3, max_grad_norm=0.0, learning_rate=100.0)
            policy, ppo = started(settings, value_trunk=trunk)
            with torch.no_grad():
                ppo._value.head.read.weight.fill_(0.1)
            before = weights(policy)
            ppo.update(tiny.scored(policy))
            moved = torch.cat([(a - b).flatten() for a, b in zip(weights(policy), before, strict=True)])
            found[trunk, coef] = moved.double()
    assert torch.equal(found["own", 0.1], found["own", 10.0])
    of_value = [found["shared", coef] - found["shared", 0.0] for coef in (0.1, 10.0)]
    assert float((of_value[1] / 100 - of_value[0]).norm()) < 0.05 * float(of_value[0].norm())


def test_the_value_network_has_a_learning_rate_of_its_own() -> None:
    steps = []
    for rate in (None, 1e-2, 2e-3, 0.0):
        policy, ppo = started(config(epochs=1, value_learning_rate=rate))
        before, policy_before = [p.detach().clone() for p in ppo._value.parameters()], weights(policy)
        report = ppo.update(tiny.scored(policy))
        assert report.metrics["learning_rate"] == 1e-2
        steps.append((apart(ppo._value.parameters(), before), apart(weights(policy), policy_before)))
    assert [value for value, _ in steps] == pytest.approx([1e-2, 1e-2, 2e-3, 0.0], rel=0.02)
    assert len({moved for _, moved in steps}) == 1


def test_every_row_is_seen_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, ppo = started(config(epochs=2, minibatches=3))
    seen: list[list[int]] = []
    step = PPO._step
    monkeypatch.setattr(
        PPO, "_step", lambda self, experience, rows: (seen.append(rows.tolist()), step(self, experience, rows))[1]
    )
    ppo.update(tiny.scored(policy))
    assert [len(rows) for rows in seen] == [4] * 6
    first, second = ([row for rows in seen[epoch] for row in rows] for epoch in (slice(3), slice(3, 6)))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second, "each epoch is shuffled anew"


def test_nothing_is_clipped_before_the_first_step() -> None:
    policy, ppo = started(config(epochs=1, minibatches=1, micro_batch_size=5))
    metrics = ppo.update(tiny.scored(policy)).metrics
    assert (metrics["clip_fraction"], metrics["value_clip_fraction"]) == (0, 0)
    assert abs(metrics["approx_kl"]) < 1e-10
    # With every ratio 1 the loss is minus the mean of whitened advantages.
    assert abs(metrics["policy_loss"]) < 1e-6


def test_whitened_rewards_keep_their_mean() -> None:
    """Their variance becomes 1, their mean stays: seen in the returns of a value network that reads zero."""
    policy, ppo = started(config(epochs=1, whiten_rewards=True, kl_coef=0.0, missing_eos="keep"))
    batch = tiny.scored(policy)
    mask = batch.rollout.samples.sequences.response_mask
    raw = torch.zeros(mask.shape)
    raw[torch.arange(len(raw)), mask.sum(1) - 1] = batch.scores
    inside = raw[mask].double()
    values = torch.zeros_like(raw)  # a fresh value network reads zero
    expected = (inside - inside.mean()) / inside.std(correction=0) + inside.mean()
    experience = []
    ppo._optimise = lambda e: experience.append(e) or {}  # type: ignore[method-assign,func-returns-value]
    ppo._config.gae_lambda = 1.0
    ppo.update(batch)
    rewards = experience[0].returns - torch.nn.functional.pad(experience[0].returns[:, 1:], (0, 1))
    torch.testing.assert_close(rewards[mask].double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(experience[0].values, values)


# What must not pass


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_score_stops_before_any_step(bad: float) -> None:
    policy, ppo = started(config())
    batch = tiny.scored(policy)
    batch.scores[3] = bad
    before, value_before = weights(policy), [p.detach().clone() for p in ppo._value.parameters()]
    with pytest.raises(NonFiniteError, match=r"the reward is NaN or infinite \(1 of 12 values\)"):
        ppo.update(batch)
    assert apart(before, weights(policy)) == 0
    assert apart(value_before, [p.detach().clone() for p in ppo._value.parameters()]) == 0


@pytest.mark.parametrize("loss", ["policy", "value"])
def test_a_bad_loss_stops_before_its_step(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, ppo = started(config(epochs=1, micro_batch_size=4))
    target = policy if loss == "policy" else ppo._value
    name = "logprobs" if loss == "policy" else "values"
    honest = getattr(target, name)

    def broken(*arguments: object, **options: object) -> object:
        result = honest(*arguments, **options)
        if not torch.is_grad_enabled():
            return result
        return (
            dataclasses.replace(result, logprobs=result.logprobs * math.nan) if loss == "policy" else result * math.nan
        )

    monkeypatch.setattr(target, name, broken)
    batch, before = tiny.scored(policy), weights(policy)
    with pytest.raises(NonFiniteError, match=f"the {loss} loss"):
        ppo.update(batch)
    assert apart(before, weights(policy)) == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"minibatches": 5}, "not a multiple"),
        ({"missing_eos": "drop"}, "Choices: keep, replace, subtract"),
        ({"value_init": "zero"}, "Choices: policy, reward"),
        ({"epochs": 0}, "epochs"),
        ({"kl_coef": -0.1}, "must be 0 to"),
        ({"kl_coef": 0.0, "kl_target": 6.0}, "kl_coef"),
        ({"kl_target": 6.0, "kl_horizon": 0.0}, "kl_horizon"),
        ({"clip_ratio": 0.0}, "clip_ratio"),
        ({"value_learning_rate": -1.0}, "value_learning_rate"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(tiny.scratch(), config(**changes))


# KL: stop, controller, direction


def test_kl_stop() -> None:
    policy, ppo = started(config(kl_stop=1e-6))
    report = ppo.update(tiny.scored(policy, n=8))
    assert report.metrics["kl"] > 1e-6
    assert report.stop is not None
    assert "kl_stop" in report.stop
    policy, ppo = started(config(kl_stop=1e6))
    assert ppo.update(tiny.scored(policy)).stop is None


@pytest.mark.parametrize("target, direction", [(1e-3, 1), (1e3, -1)])
def test_the_adaptive_coefficient_moves_towards_its_target(target: float, direction: int) -> None:
    """Above the target it grows, below it shrinks; the change is the controller's, and shows in the next update."""
    policy, ppo = started(config(kl_target=target, kl_horizon=120.0, learning_rate=0.0))
    first = ppo.update(tiny.scored(policy, n=8))
    second = ppo.update(tiny.scored(policy, n=8))
    assert math.copysign(1, first.metrics["kl"] - target) == direction
    assert first.metrics["kl_coef"] == 0.1
    assert second.metrics["kl_coef"] == pytest.approx(0.1 * (1 + direction * 0.2 * 48 / 120))


@pytest.mark.parametrize("target, factor", [(1e-3, 1.02), (1e3, 0.98)])
def test_by_default_the_horizon_is_ten_batches(target: float, factor: float) -> None:
    """So that a coefficient that is always wrong has moved far by the end of a run of a hundred updates."""
    policy, ppo = started(config(kl_target=target, learning_rate=0.0, updates=10))
    found = [ppo.update(tiny.scored(policy)).metrics["kl_coef"] for _ in range(3)]
    assert found == pytest.approx([0.1, 0.1 * factor, 0.1 * factor**2])


def test_a_horizon_beyond_the_end_of_the_run_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    policy, ppo = started(config(kl_target=1.0, kl_horizon=100.0))  # of 48 responses
    for _ in range(2):
        ppo.update(tiny.scored(policy))
    (said,) = caplog.messages
    assert said.startswith(
        "algo.kl_horizon=100 is more than the 48 responses of this run: kl_coef moves by at most 10%"
    )
    caplog.clear()
    for changes in ({"kl_horizon": 48.0}, {"updates": 10}, {"kl_target": 0.0}):
        started(config(**({"kl_target": 1.0} | changes)))
    assert not caplog.messages


def test_a_fixed_coefficient_stays() -> None:
    policy, ppo = started(config())
    assert [ppo.update(tiny.scored(policy, seed=i)).metrics["kl_coef"] for i in range(2)] == [0.1, 0.1]


def true_kl(policy: HFPolicy) -> float:
    samples = policy.generate(tiny.PROMPTS, tiny.Sampling(), n=200, rng=torch.Generator().manual_seed(99)).samples
    with torch.no_grad():
        own, ref = (policy.logprobs(samples.sequences, role=role).logprobs for role in ("policy", "reference"))
    return float(functional.sequence_kl(own, ref, samples.sequences.response_mask).mean())


def test_the_penalty_pulls_towards_the_reference() -> None:
    """With no reward but the penalty, a policy far from its reference goes back to it: the sign of the KL is right."""
    settings = config(updates=20, kl_coef=1.0, missing_eos="keep", learning_rate=5e-3, epochs=2, gae_lambda=1.0)
    policy = tiny.scratch()
    policy.freeze_reference()
    tiny.move(policy, scale=0.1)
    ppo = build(policy, settings)
    before = true_kl(policy)
    for update in range(settings.updates):
        batch = tiny.scored(policy, n=10, seed=update)
        ppo.update(dataclasses.replace(batch, scores=torch.zeros(len(batch.scores))))
    assert before > 1
    assert true_kl(policy) < 0.5 * before


# State and wiring


def test_a_restored_optimizer_goes_on_bit_for_bit() -> None:
    """From the state of the optimizer (through torch.save) and the policy's weights alone, in objects built anew."""
    settings = config(kl_target=0.5, minibatches=2, kl_horizon=100, lr_schedule="linear", warmup_updates=1)
    policy, ppo = started(settings)
    ppo.update(tiny.scored(policy, seed=1))
    file = io.BytesIO()
    torch.save(ppo.state_dict(), file)
    kept = weights(policy)
    batch = tiny.scored(policy, seed=2)
    report, after = ppo.update(batch), weights(policy)

    other, restored = started(settings)
    with torch.no_grad():
        for parameter, value in zip(other.trainable(), kept, strict=True):
            parameter.copy_(value)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert dict(restored.update(batch).metrics) == dict(report.metrics)
    assert apart(weights(other), after) == 0
    assert apart(restored._value.parameters(), ppo._value.parameters()) == 0


def test_value_network_starts_from_the_reward_model_if_there_is_one() -> None:
    policy = tiny.scratch()
    reward = policy.scalar("reward")
    with torch.no_grad():
        for parameter in reward.parameters():
            parameter += 0.1
    sequences = tiny.sequences(policy)
    ppo = build(policy, config(value_init="reward"))
    assert torch.equal(ppo._value.values(sequences), reward.values(sequences))
    other = tiny.scratch()
    other.scalar("reward")
    assert (build(other, config(value_init="policy"))._value.values(tiny.sequences(other)) == 0).all()
    assert (build(tiny.scratch(), config(value_init="reward"))._value.values(sequences) == 0).all()


def test_updates_leave_reference_and_reward_model_alone() -> None:
    policy = tiny.scratch()
    policy.freeze_reference()
    reward = policy.scalar("reward")
    sequences = tiny.sequences(policy)
    before = policy.logprobs(sequences, role="reference").logprobs, reward.values(sequences).detach()
    ppo = build(policy, config())
    ppo.update(tiny.scored(policy))
    assert torch.equal(policy.logprobs(sequences, role="reference").logprobs, before[0])
    assert torch.equal(reward.values(sequences), before[1])
    assert not torch.equal(policy.logprobs(sequences).logprobs, before[0])


def test_the_same_update_on_adapters() -> None:
    """Policy and value network as adapters on one base: both move, and the base does not."""
    policy = tiny.adapters()
    policy.freeze_reference()
    base = {n: p.detach().clone() for n, p in policy._roles.use("policy").named_parameters() if "lora_" not in n}
    ppo = build(policy, config(micro_batch_size=5))
    value_before, before = [p.detach().clone() for p in ppo._value.parameters()], weights(policy)
    report = ppo.update(tiny.scored(policy))
    assert min(report.metrics["policy_gradient_norm"], report.metrics["value_gradient_norm"]) > 0
    assert apart(before, weights(policy)) > 1e-3
    assert apart(value_before, [p.detach() for p in ppo._value.parameters()]) > 1e-3
    now = dict(policy._roles.use("policy").named_parameters())
    assert all(torch.equal(now[name], parameter) for name, parameter in base.items())
