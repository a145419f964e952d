"""PPO for language models, in the order of the papers.

Stiennon et al. (arXiv 2009.01325) and Ouyang et al. (arXiv 2203.02155) maximise E[r(x, y)] - beta KL(pi || pi_ref);
the details follow Huang et al. (arXiv 2403.17031). A response of L tokens has states s_0 .. s_L: the value network is
trained at s_0 .. s_{L-1}, and V(s_L) is 0 because the episode ends there, with or without EOS.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench import (
    POLICY,
    REFERENCE,
    ExactProblem,
    Policy,
    PolicyOptimizer,
    RolloutTerms,
    ScoredRollout,
    Seeds,
    Sequences,
    UpdateReport,
    functional,
)
from alignbench.functional import ClippedLoss, masked_mean, masked_sum, policy_loss, require_finite, shape_scores
from alignbench_ppo import equations
from alignbench_ppo.config import PPOConfig, check, check_warmup
from alignbench_ppo.kl_loss import LossKL
from alignbench_ppo.value_warmup import ValueWarmup

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experience:
    """What the optimisation phase holds fixed. Tensors are [B, R], 0 outside the response. `kl`: None where it is in the reward."""

    sequences: Sequences
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    kl: LossKL | None = None

    def select(self, rows: Tensor) -> Experience:
        """The given rows, trimmed as Sequences.select does."""
        sequences = self.sequences.select(rows)
        width = sequences.response_ids.shape[1]
        kept = (part[rows, :width] for part in (self.logprobs, self.values, self.advantages, self.returns))
        return Experience(sequences, *kept, None if self.kl is None else self.kl.select(rows, width))


class PPO(PolicyOptimizer[ScoredRollout]):
    """One update: shape the rewards, estimate advantages, then epochs x minibatches clipped steps."""

    shares_batches = True

    def __init__(self, config: PPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        check(config)
        check_warmup(config, updates)
        own_updates = updates - config.value_warmup
        self._config, self._policy = config, policy
        from_reward = config.value_init == "reward" and "reward" in policy.scalars()
        self._value = policy.scalar("value", init_from="reward" if from_reward else POLICY)
        roles = {"policy": policy.trainable(), "value": self._value.parameters()}
        self._value_coef = config.value_coef if self._value.reads_policy else 1.0
        own = {} if config.value_learning_rate is None else {"value": config.value_learning_rate}
        reaches = {"value": "policy"} if self._value.reads_policy else {}
        self._optimizer = functional.ScheduledAdamW(config, roles, own_updates, learning_rates=own, reaches=reaches)
        self._warmup = ValueWarmup(config, self._value) if config.value_warmup else None
        self._shuffle = seeds.torch("minibatches")
        self._kl_coef = config.kl_coef
        if config.kl_target > 0 and config.horizon > (responses := own_updates * config.batch_size):
            log.warning(
                "algo.kl_horizon=%g is more than the %d responses of this run: kl_coef moves by at most %.0f%% and may not "
                "reach algo.kl_target. Lower it (ten batches are %d).",
                config.horizon, responses, 100 * math.expm1(0.2 * responses / config.horizon), 10 * config.batch_size,
            )  # fmt: skip

    @classmethod
    def optimum(cls, config: PPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / kl_coef) / Z, the optimum of E[r] - kl_coef KL. None where the objective is another (discounting,
        rewards whitened by the batch, a moving coefficient, another temperature, a KL in the loss by which a token does not pay for
        what it leads to) or has no finite optimum (kl_coef=0)."""
        plain = config.gamma == 1 and not config.whiten_rewards and config.temperature == 1
        plain = plain and (config.kl_in == "reward" or config.kl_estimator == "unbiased")
        if not plain or config.kl_target > 0 or config.kl_coef == 0:
            return None
        scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
        return None if scores is None else functional.kl_optimum(problem.reference, scores, config.kl_coef)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """One on-policy step per batch on unbiased advantages, and of a KL in the loss the gradient that is unbiased."""
        return {
            "kl_estimator": "unbiased",
            "epochs": 1,
            "minibatches": 1,
            "gae_lambda": 1.0,
            "clip_value": 0.0,
        }

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """Where a response that is cut off has a score of its own; with the KL in the loss; and with all that VAPO does to values."""
        return (
            {"missing_eos": "replace", "missing_eos_penalty": 0.5},
            {"kl_in": "loss"},
            {"value_warmup": 10, "gae_lambda_value": 1.0, "length_adaptive_lambda": 1.0},
        )

    @classmethod
    def stated_loss(cls, config: PPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.loss(config, terms)

    def update(self, batch: ScoredRollout) -> UpdateReport:
        config, samples = self._config, batch.rollout.samples
        sequences, mask = samples.sequences, samples.sequences.response_mask.bool()

        # 1. Log-probabilities of the sampled tokens under policy and reference, and values, before any step. They are
        #    recomputed rather than taken from the sampler, so that the first ratio is exactly 1.
        with torch.no_grad():
            old, values = self._policy.logprobs_and_values(
                sequences, self._value, temperature=config.temperature, entropy=True
            )
            ref = self._policy.logprobs(sequences, role=REFERENCE, temperature=config.temperature)
            values = values[:, :-1].masked_fill(~mask, 0.0)

        # 2. Rewards: -beta (log pi - log pi_ref) at every token, unless the loss has it, and the score once, at the last one.
        require_finite("the reward", batch.scores, hint="Check the reward source.")
        kl_coef = self._kl_coef if config.kl_in == "reward" else 0.0
        scores = shape_scores(batch.scores, samples.finished, config.missing_eos, config.missing_eos_penalty)
        rewards = token_rewards(scores, old.logprobs, ref.logprobs, mask, kl_coef)
        if config.whiten_rewards:
            rewards = functional.masked_whiten(rewards, mask, shift_mean=False)

        # 3. Advantages and returns.
        warmup = self._warmup if self._warmup is not None and self._warmup.goes_on else None
        lam, lam_value = policy_lambda(config, mask), 1.0 if warmup else config.lambda_of_returns
        advantages, returns = gae(rewards, values, mask, gamma=config.gamma, lam=lam)
        if isinstance(lam, Tensor) or lam != lam_value:
            _, returns = gae(rewards, values, mask, gamma=config.gamma, lam=lam_value)
        explained = explained_variance(values, returns, mask)
        unscaled = advantages
        if config.whiten_advantages:
            advantages = functional.masked_whiten(advantages, mask)
        # Where an engine sampled, a token counts as the policy would have drawn it. A weight above 0 passes through the minimum of
        # the clipped loss, so it may sit on the advantage; the value network is fitted to the responses as they came.
        correction = functional.correction(batch.rollout, old.logprobs, config)
        advantages = advantages * correction.weights

        # 4. Clipped steps; before the policy's first ones, those of the value network alone.
        learning_rate = 0.0
        if warmup:
            measured = warmup.update(sequences, returns, self._shuffle)
        else:
            in_loss = LossKL.of(
                old.logprobs, ref.logprobs, mask, correction.weights,
                kl_coef=0.0 if config.kl_in == "reward" else self._kl_coef, estimator=config.kl_estimator,
                advantages=unscaled if config.whiten_advantages else None,
            )  # fmt: skip
            steps_before, learning_rate = self._optimizer.steps, self._optimizer.next_update()
            measured = self._optimise(Experience(sequences, old.logprobs, values, advantages, returns, in_loss))

        # 5. What happened, in nats per response; then the KL controller, and the stop.
        kl = functional.sequence_kl(old.logprobs, ref.logprobs, mask)
        metrics = {
            "reward": float(batch.scores.mean()),
            "objective": float((scores - self._kl_coef * kl).mean()),
            "kl": float(kl.mean()),
            "kl_coef": self._kl_coef,
            "entropy": float(masked_mean(old.entropy, mask)) if old.entropy is not None else float("nan"),
            "length": float(mask.sum(1).float().mean()),
            "eos_rate": float(samples.finished.float().mean()),
            "explained_variance": explained,
            "learning_rate": learning_rate,
            **correction.figures,
            **measured,
        }
        if warmup:
            return UpdateReport(metrics, config.epochs * config.minibatches)
        if config.kl_target > 0:
            self._kl_coef = adapt_kl_coef(
                self._kl_coef, metrics["kl"], len(sequences), config.kl_target, config.horizon
            )
        over = 0 < config.kl_stop < metrics["kl"]
        stop = f"KL {metrics['kl']:.2f} nats per response is above algo.kl_stop={config.kl_stop}" if over else None
        return UpdateReport(metrics, self._optimizer.steps - steps_before, stop)

    def _optimise(self, experience: Experience) -> dict[str, float]:
        """Makes epochs x minibatches optimizer steps; returns the mean over them of what each step measured."""
        totals: Counter[str] = Counter()
        rows, steps = len(experience.sequences), self._config.epochs * self._config.minibatches
        parts = functional.minibatches(
            rows, epochs=self._config.epochs, count=self._config.minibatches, generator=self._shuffle
        )
        for minibatch in parts:
            totals.update(self._step(experience, minibatch))
        return {name: total / steps for name, total in totals.items()}

    def _step(self, experience: Experience, minibatch: Tensor) -> dict[str, float]:
        """One optimizer step on the mean loss of a minibatch's tokens, gathered over micro-batches.

        A value that reads the policy's states takes one pass forward with it, and trains the policy's weights too, as in arXiv
        1707.06347, equation 9; there and back each loss goes by itself, because each role's gradient is clipped on its own. One with
        a network of its own comes after the policy, whose activations are gone by then."""
        config, temperature = self._config, self._config.temperature
        tokens = experience.sequences.response_mask[minibatch].sum()
        sums: Counter[str] = Counter()
        self._optimizer.zero_grad()
        for rows in functional.micro_batches(experience.sequences, minibatch, config.micro_batch_size):
            part = experience.select(rows)
            if self._value.reads_policy:
                new, values = self._policy.logprobs_and_values(part.sequences, self._value, temperature=temperature)
                of_policy = self._policy_loss(part, new.logprobs, tokens, sums)
                of_policy.backward(retain_graph=True)  # type: ignore[no-untyped-call]
                self._optimizer.backward_of("value", self._value_loss(part, values, tokens, sums))
            else:
                new = self._policy.logprobs(part.sequences, temperature=temperature)
                self._policy_loss(part, new.logprobs, tokens, sums).backward()  # type: ignore[no-untyped-call]
                values = self._value.values(part.sequences)
                self._value_loss(part, values, tokens, sums).backward()  # type: ignore[no-untyped-call]
        norms = self._optimizer.step()
        sums = functional.across_processes(sums)
        return {**sums, "policy_gradient_norm": norms["policy"], "value_gradient_norm": norms["value"]}

    def _policy_loss(self, part: Experience, new: Tensor, tokens: Tensor, sums: Counter[str]) -> Tensor:
        """These rows' share of the clipped loss; adds to `sums` what is logged."""
        mask = part.sequences.response_mask.bool()
        loss = policy_loss(new, part.logprobs, part.advantages, mask, self._config.clip_ratio)
        if part.kl:
            loss = ClippedLoss(loss.total + part.kl.total(new, mask), loss.clipped)
        require_finite("the policy loss", loss.total.detach(), hint="Lower the learning rate.")
        sums["policy_loss"] += float(loss.total.detach() / tokens)
        sums["clip_fraction"] += float(loss.clipped / tokens)
        sums["approx_kl"] += float(masked_sum(functional.kl_k3(part.logprobs, new.detach()), mask) / tokens)
        return loss.total / tokens

    def _value_loss(self, part: Experience, values: Tensor, tokens: Tensor, sums: Counter[str]) -> Tensor:
        """These rows' share of the value loss, weighed; adds to `sums` what is logged."""
        mask = part.sequences.response_mask.bool()
        loss = value_loss(values[:, :-1], part.values, part.returns, mask, self._config.clip_value)
        require_finite("the value loss", loss.total.detach(), hint="Lower the learning rate.")
        sums["value_loss"] += float(loss.total.detach() / tokens)
        sums["value_clip_fraction"] += float(loss.clipped / tokens)
        return self._value_coef * loss.total / tokens

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self._optimizer.state_dict(),
            "value": [parameter.detach() for parameter in self._value.parameters()],
            "kl_coef": self._kl_coef,
            "shuffle": self._shuffle.get_state(),
            **({} if self._warmup is None else {"warmup": self._warmup.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for parameter, saved in zip(self._value.parameters(), state["value"], strict=True):
                parameter.copy_(saved)
        self._kl_coef = state["kl_coef"]
        self._shuffle.set_state(state["shuffle"])
        if self._warmup is not None:
            self._warmup.load_state_dict(state["warmup"])


def token_rewards(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """[B, R]: r_t = -kl_coef (log pi - log pi_ref), plus the score at the last response token."""
    rewards = torch.where(mask, -kl_coef * functional.kl_k1(logprobs, ref_logprobs), torch.zeros_like(logprobs))
    last = (mask.sum(1) - 1).clamp(min=0)
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float | Tensor) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv 1506.02438): advantages and returns, [B, R], 0 outside the mask. `lam`: of all, or [B].

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t); A_t = delta_t + gamma lam A_{t+1}; both next terms are 0 at the end."""
    inside = mask.to(values.dtype)
    values = torch.where(mask, values, torch.zeros_like(values))
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(following)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * inside[:, t]
        advantages[:, t] = following
        next_value = values[:, t]
    return advantages, advantages + values


def policy_lambda(config: PPOConfig, mask: Tensor) -> float | Tensor:
    """Lambda of the advantages: one for all, or [B] by the length of each response (arXiv 2504.05118): the share of a
    delta that lies l tokens ahead is then about the same whatever l is."""
    if config.length_adaptive_lambda == 0:
        return config.gae_lambda
    return (1 - 1 / (config.length_adaptive_lambda * mask.sum(1).clamp(min=1))).clamp(min=0)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_value: float) -> ClippedLoss:
    """0.5 max((V - R)^2, (clip(V) - R)^2), summed; V is clipped to the old value +- clip_value (0: not at all)."""
    plain = (values - returns) ** 2
    if clip_value <= 0:
        return ClippedLoss(0.5 * masked_sum(plain, mask), torch.zeros((), device=values.device))
    near = values.clamp(old_values - clip_value, old_values + clip_value)
    clipped = (near - returns) ** 2
    return ClippedLoss(0.5 * masked_sum(torch.maximum(plain, clipped), mask), ((clipped > plain) & mask).sum())


def adapt_kl_coef(kl_coef: float, kl: float, responses: int, target: float, horizon: float) -> float:
    """The proportional controller of Ziegler et al. (arXiv 1909.08593, section 2.2); `kl` in nats per response."""
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * responses / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(R - V) / Var(R): 1 for a perfect value network, 0 for a constant one."""
    error = returns - values
    left = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    return float(1 - left / masked_mean((returns - masked_mean(returns, mask)) ** 2, mask).clamp(min=1e-8))
