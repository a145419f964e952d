"""Whole updates of RLOO and GRPO on a policy of a few thousand weights."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from alignbench_group.config import GroupConfig, GRPOConfig, RLOOConfig
from alignbench_group.groups import GroupOptimizer
from alignbench_group.grpo import GRPO
from alignbench_group.rloo import RLOO
from alignbench_hf.policy import HFPolicy
from torch import Tensor

from alignbench import NonFiniteError, ScoredRollout, Seeds, UserError
from tests import tiny

K = 3
ROWS = K * len(tiny.PROMPTS)


def config(schema: type[GroupConfig], **changes: object) -> GroupConfig:
    size = {"updates": 4, "batch_size": ROWS, "learning_rate": 1e-2, "lr_schedule": "constant", "samples_per_prompt": K}
    return schema(**(size | changes))


def rloo(**changes: object) -> GroupConfig:
    return config(RLOOConfig, **changes)


def grpo(**changes: object) -> GroupConfig:
    return config(GRPOConfig, **changes)


def started(settings: GroupConfig) -> tuple[HFPolicy, GroupOptimizer]:
    """A policy that has moved away from its reference, and the algorithm on it."""
    policy = tiny.scratch()
    policy.freeze_reference()
    tiny.move(policy, scale=0.03)
    algorithm = GRPO if isinstance(settings, GRPOConfig) else RLOO
    return policy, algorithm(settings, policy=policy, updates=settings.updates, seeds=Seeds(0))


def scored(policy: HFPolicy, seed: int = 0, temperature: float = 1.0) -> ScoredRollout:
    return tiny.scored(policy, n=K, seed=seed, temperature=temperature)


def weights(policy: HFPolicy) -> list[Tensor]:
    return [p.detach().clone() for p in policy.trainable()]


def apart(left: list[Tensor], right: list[Tensor]) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(left, right, strict=True))


# The reference: updates in float64, a response at a time, without padding


@dataclass
class Response:
    prompt: list[int]
    tokens: list[int]
    score: float
    finished: bool


def responses(batch: ScoredRollout) -> list[Response]:
    s, ended = batch.rollout.samples.sequences, batch.rollout.samples.finished.tolist()
    return [
        Response(s.prompt_ids[i][s.prompt_mask[i]].tolist(), s.response_ids[i][s.response_mask[i]].tolist(), score, end)
        for i, (score, end) in enumerate(zip(batch.scores.tolist(), ended, strict=True))
    ]


class Reference:
    """The papers' updates in float64 and loops, with an Adam of its own. Full batches only."""

    def __init__(self, settings: GroupConfig, policy: HFPolicy) -> None:
        self.settings = settings
        self.policy, self.ref = (copy.deepcopy(policy._roles.use(role)).double() for role in ("policy", "reference"))
        self.parameters = list(self.policy.parameters())
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    def logprobs(self, model: torch.nn.Module, r: Response) -> Tensor:
        logits = model(input_ids=torch.tensor([r.prompt + r.tokens])).logits[0, len(r.prompt) - 1 : -1]
        logits = logits / self.settings.temperature
        return torch.stack([logits[t, token] - logits[t].exp().sum().log() for t, token in enumerate(r.tokens)])

    def update(self, batch: list[Response]) -> dict[str, float]:
        c = self.settings
        with torch.no_grad():
            old = [self.logprobs(self.policy, r).tolist() for r in batch]
            ref = [self.logprobs(self.ref, r).tolist() for r in batch]
        kl = [sum(p) - sum(q) for p, q in zip(old, ref, strict=True)]
        scores = [r.score if r.finished else r.score - c.missing_eos_penalty for r in batch]
        in_reward = not isinstance(c, GRPOConfig) or c.kl_in == "reward"
        rewards = [s - c.kl_coef * d if in_reward else s for s, d in zip(scores, kl, strict=True)]
        advantages: list[float] = []
        for start in range(0, len(batch), K):
            own = rewards[start : start + K]
            for i, reward in enumerate(own):
                if not isinstance(c, GRPOConfig):
                    advantages.append(reward - (sum(own) - own[i]) / (K - 1))
                    continue
                centred = reward - float(np.mean(own))
                advantages.append(centred / (float(np.std(own)) + c.std_eps) if c.scale_by_std else centred)
        measured = [self.step(batch, old, ref, advantages) for _ in range(c.epochs)]
        return {
            "reward": float(np.mean([r.score for r in batch])),
            "objective": float(np.mean([s - c.kl_coef * d for s, d in zip(scores, kl, strict=True)])),
            "kl": float(np.mean(kl)),
            "length": float(np.mean([len(r.tokens) for r in batch])),
            "eos_rate": float(np.mean([r.finished for r in batch])),
            **{name: float(np.mean([m[name] for m in measured])) for name in measured[0]},
        }

    def rloo_loss(self, new: Tensor, old: list[float], advantage: float) -> tuple[Tensor, Tensor]:
        """The loss, and what its gradient is taken of: -A log pi(y) on the first step, as in the paper."""
        c = self.settings
        ratio = (new.sum() - sum(old)).exp()
        bounded = ratio.clamp(1 - c.clip_ratio, 1 + c.clip_ratio)
        loss = -torch.minimum(ratio * advantage, bounded * advantage)
        return loss, -advantage * new.sum() if c.epochs == 1 else loss

    def grpo_loss(self, new: Tensor, old: list[float], ref: list[float], advantage: float) -> Tensor:
        c = self.settings
        assert isinstance(c, GRPOConfig)
        total = torch.zeros((), dtype=torch.float64)
        for t in range(len(old)):
            ratio = (new[t] - old[t]).exp()
            bounded = ratio.clamp(1 - c.clip_ratio, 1 + c.clip_ratio)
            total = total - torch.minimum(ratio * advantage, bounded * advantage)
            if c.kl_in == "loss":
                x = ref[t] - new[t]
                total = total + c.kl_coef * (x.exp() - x - 1 if c.kl_estimator == "k3" else 0.5 * x**2)
        return total / len(old) if c.length_normalisation == "response" else total

    def step(self, batch, old, ref, advantages) -> dict[str, float]:  # type: ignore[no-untyped-def]
        c = self.settings
        loss = objective = torch.zeros((), dtype=torch.float64)
        for r, p, q, advantage in zip(batch, old, ref, advantages, strict=True):
            new = self.logprobs(self.policy, r)
            if isinstance(c, GRPOConfig):
                value = surrogate = self.grpo_loss(new, p, q, advantage)
            else:
                value, surrogate = self.rloo_loss(new, p, advantage)
            loss, objective = loss + value / len(batch), objective + surrogate / len(batch)
        gradients = torch.autograd.grad(objective, self.parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        shrink = min(1.0, c.max_grad_norm / norm) if c.max_grad_norm > 0 else 1.0
        self.steps += 1
        with torch.no_grad():
            for p, g, m, s in zip(self.parameters, gradients, self.first, self.second, strict=True):
                m.mul_(0.9).add_(0.1 * shrink * g)
                s.mul_(0.999).add_(0.001 * (shrink * g) ** 2)
                p -= c.learning_rate * (m / (1 - 0.9**self.steps)) / ((s / (1 - 0.999**self.steps)).sqrt() + c.adam_eps)
        return {"loss": float(loss.detach()), "gradient_norm": norm}


@pytest.mark.parametrize(
    "settings",
    [
        rloo(),
        rloo(kl_coef=0.7, epochs=3, clip_ratio=0.05, missing_eos_penalty=3.0),
        rloo(temperature=0.7, max_grad_norm=0.0, kl_coef=0.0),
        grpo(),
        grpo(kl_coef=0.5, epochs=3, clip_ratio=0.05, missing_eos_penalty=3.0, temperature=0.7),
        grpo(scale_by_std=False, length_normalisation="none", kl_estimator="k2", kl_coef=0.5, max_grad_norm=0.1),
        grpo(scale_by_std=False, length_normalisation="none", kl_in="reward", kl_coef=0.5, epochs=2),
        grpo(kl_in="reward", kl_coef=1.0, std_eps=0.3),
    ],
    ids=[
        "rloo",
        "rloo-epochs",
        "rloo-temperature",
        "grpo",
        "grpo-epochs",
        "dr-grpo-k2",
        "dr-grpo-reward",
        "grpo-reward",
    ],
)
def test_updates_are_those_of_a_float64_reference(settings: GroupConfig) -> None:
    """Two updates in a row: every metric, and every weight after them."""
    policy, algorithm = started(settings)
    reference = Reference(settings, policy)
    for seed in range(2):
        batch = scored(policy, seed, settings.temperature)
        assert 0 < float(batch.rollout.samples.finished.float().mean()) < 1, "both ways to end should be seen"
        report = algorithm.update(batch)
        expected = reference.update(responses(batch))
        for name, value in expected.items():
            assert report.metrics[name] == pytest.approx(value, rel=1e-3, abs=2e-5), name
        assert report.metrics["groups_without_spread"] == 0
    others = {"kl_coef", "entropy", "groups_without_spread", "learning_rate", "clip_fraction"}
    assert set(report.metrics) == {*expected, *others}
    assert apart([p.double() for p in policy.trainable()], reference.parameters) < 2e-4, "after steps of 1e-2"


# Groups


@pytest.mark.parametrize("settings", [rloo(), grpo(), grpo(scale_by_std=False)], ids=["rloo", "grpo", "dr-grpo"])
def test_a_group_without_spread_gives_no_gradient_and_is_counted(settings: GroupConfig) -> None:
    """Rewards that a float32 mean would not meet exactly: rounding is not scaled up to an advantage."""
    policy, algorithm = started(dataclasses.replace(settings, kl_coef=0.0, missing_eos="keep"))
    batch, before = scored(policy), weights(policy)
    report = algorithm.update(dataclasses.replace(batch, scores=torch.full((ROWS,), 0.1)))
    assert report.metrics["groups_without_spread"] == 1
    assert report.metrics["gradient_norm"] == 0
    assert apart(before, weights(policy)) == 0
    scores = torch.full((ROWS,), 0.1)
    scores[0] = 1.0
    report = algorithm.update(dataclasses.replace(batch, scores=scores))
    assert report.metrics["groups_without_spread"] == pytest.approx(1 - 1 / len(tiny.PROMPTS))
    assert report.metrics["gradient_norm"] > 0


@pytest.mark.parametrize("settings", [rloo(), grpo()], ids=["rloo", "grpo"])
def test_responses_are_compared_with_those_to_the_same_prompt_alone(settings: GroupConfig) -> None:
    """A constant added to all scores of one prompt changes nothing: the prompts' difficulty is not an advantage."""
    outcomes = []
    for bonus in (0.0, 50.0):
        policy, algorithm = started(settings)
        batch = scored(policy)
        assert [p.id for p in batch.rollout.samples.prompts] == [p.id for p in tiny.PROMPTS for _ in range(K)]
        scores = batch.scores.clone()
        scores[K : 2 * K] += bonus
        algorithm.update(dataclasses.replace(batch, scores=scores))
        outcomes.append(weights(policy))
    assert apart(*outcomes) < 1e-3
    assert apart(outcomes[0], weights(started(settings)[0])) > 5e-3


# Steps


@pytest.mark.parametrize("schema", [RLOOConfig, GRPOConfig])
@pytest.mark.parametrize("epochs, minibatches, micro", [(1, 1, 64), (3, 1, 5), (2, 3, 2)])
def test_steps_are_epochs_times_minibatches(
    schema: type[GroupConfig], epochs: int, minibatches: int, micro: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: (steps.append(1), step(self))[1])
    policy, algorithm = started(config(schema, epochs=epochs, minibatches=minibatches, micro_batch_size=micro))
    report = algorithm.update(scored(policy))
    assert len(steps) == report.optimizer_steps == epochs * minibatches


@pytest.mark.parametrize("schema", [RLOOConfig, GRPOConfig])
@pytest.mark.parametrize("micro", [1, 5])
def test_micro_batches_change_memory_only(schema: type[GroupConfig], micro: int) -> None:
    outcomes = []
    for size in (64, micro):
        policy, algorithm = started(config(schema, epochs=2, minibatches=2, micro_batch_size=size))
        outcomes.append((dict(algorithm.update(scored(policy)).metrics), weights(policy)))
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], rel=1e-4, abs=1e-5)
    assert apart(outcomes[0][1], outcomes[1][1]) < 1e-4


@pytest.mark.parametrize("schema", [RLOOConfig, GRPOConfig])
def test_a_bad_score_stops_before_any_step(schema: type[GroupConfig]) -> None:
    policy, algorithm = started(config(schema))
    batch, before = scored(policy), weights(policy)
    batch.scores[3] = math.nan
    with pytest.raises(NonFiniteError, match=r"the reward is NaN or infinite \(1 of 18 values\)"):
        algorithm.update(batch)
    assert apart(before, weights(policy)) == 0


# What is refused


@pytest.mark.parametrize("schema", [RLOOConfig, GRPOConfig])
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"samples_per_prompt": 1}, "must be 2 to"),
        ({"samples_per_prompt": 5}, "must be a multiple of samples_per_prompt"),
        ({"minibatches": 5}, "not a multiple"),
        ({"missing_eos": "drop"}, "Choices: keep, replace, subtract"),
        ({"epochs": 0}, "epochs"),
        ({"clip_ratio": 0.0}, "clip_ratio"),
        ({"kl_coef": -0.1}, "must be 0 to"),
    ],
)
def test_impossible_settings_are_refused(schema: type[GroupConfig], changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(schema, **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kl_in": "rewards"}, "Did you mean 'reward'"),
        ({"kl_estimator": "k4"}, "Choices: k1, k2, k3"),
        ({"length_normalisation": "tokens"}, "Choices: none, response, token"),
        ({"std_eps": 0.0}, "std_eps"),
        ({"kl_estimator": "k1"}, "expected gradient is 0"),
    ],
)
def test_impossible_settings_of_grpo_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        grpo(**changes)


def test_k1_is_refused_in_the_loss_alone() -> None:
    assert grpo(kl_estimator="k1", kl_in="reward").kl_estimator == "k1"
