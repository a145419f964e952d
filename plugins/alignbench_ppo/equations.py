"""PPO's loss as the papers write it, response by response: what every step of the algorithm is held to.

It is written anew and shares no code with ppo.py: Schulman et al. (arXiv 1707.06347, 1506.02438), Ziegler et al. (1909.08593),
Huang et al. (2403.17031), Yuan et al. (2503.01491), Yue et al. (2504.05118), DeepSeek-AI (2512.02556).
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import RolloutTerms
from alignbench_ppo.config import PPOConfig


def loss(config: PPOConfig, terms: RolloutTerms) -> Tensor:
    """Policy loss (1707.06347, equation 7) and value loss (2403.17031, section 3), each a mean over the tokens of the step."""
    assert terms.values is not None
    assert terms.values_before is not None
    t, lengths = terms.responses, terms.responses.mask.sum(1).tolist()
    kl_coef = coefficient(config, terms.earlier_kl[config.value_warmup :])
    warming, in_loss = len(terms.earlier_kl) < config.value_warmup, config.kl_in == "loss"
    rewards = [
        reward(config, terms, row, 0.0 if in_loss else kl_coef, (t.before - t.reference)[row, :length])
        for row, length in enumerate(lengths)
    ]
    if config.whiten_rewards:
        every = torch.cat(rewards)
        # (r - mean) / sd + mean: the mean stays.
        rewards = [(r - every.mean()) / every.std(correction=0) + every.mean() for r in rewards]
    old_values = [terms.values_before[row, :length] for row, length in enumerate(lengths)]
    own, learnt = lambdas(config, lengths, warming)
    advantages = [gae(*one, config.gamma, lam) for *one, lam in zip(rewards, old_values, own, strict=True)]
    returns = [v + gae(r, v, config.gamma, lam) for r, v, lam in zip(rewards, old_values, learnt, strict=True)]
    if config.whiten_advantages:
        every = torch.cat(advantages)
        advantages = [(a - every.mean()) / every.std(correction=0) for a in advantages]
        kl_coef = kl_coef / every.std(correction=0)  # of a KL in the loss: all that the policy follows is divided

    policy, value = [], []
    for row in terms.rows.tolist():
        ratio = (t.logprobs - t.before)[row, : lengths[row]].exp()
        near_one = ratio.clip(1 - config.clip_ratio, 1 + config.clip_ratio)
        weight = importance(config, terms, row, lengths[row])
        policy.append(-weight * torch.minimum(ratio * advantages[row], near_one * advantages[row]))
        if in_loss:
            policy[-1] = policy[-1] + weight * kl_coef * penalty(config, terms, row, lengths[row])
        new, old, target = terms.values[row, : lengths[row]], old_values[row], returns[row]
        error = (new - target) ** 2
        if config.clip_value > 0 and not warming:
            near = old + (new - old).clip(-config.clip_value, config.clip_value)
            error = torch.maximum(error, (near - target) ** 2)
        value.append(error / 2)
    if warming:
        return torch.cat(value).mean()
    return torch.cat(policy).mean() + (config.value_coef if terms.shared else 1.0) * torch.cat(value).mean()


def lambdas(config: PPOConfig, lengths: list[int], warming: bool) -> tuple[list[float], list[float]]:
    """Of each response's advantages, 1 - 1 / (alpha l) (2504.05118, length-adaptive GAE) or one for all, and of its returns
    (2503.01491, decoupled GAE), which are whole while the value network is pretrained."""
    alpha, own = config.length_adaptive_lambda, [config.gae_lambda] * len(lengths)
    if alpha > 0:
        own = [max(0.0, 1 - 1 / (alpha * length)) for length in lengths]
    learnt = config.gae_lambda if config.gae_lambda_value is None else config.gae_lambda_value
    return own, [1.0 if warming else learnt] * len(lengths)


def penalty(config: PPOConfig, terms: RolloutTerms, row: int, length: int) -> Tensor:
    """Of each token, a KL in the loss. Unbiased: k3 by the probability ratio (2512.02556, equation 7), and the log-ratios of the tokens
    to come in the place of an advantage."""
    t = terms.responses
    new, old, reference = (part[row, :length] for part in (t.logprobs, t.before, t.reference))
    away = new - reference
    if config.kl_estimator == "k2":
        return away**2 / 2
    k3 = (-away).exp() - 1 + away
    if config.kl_estimator == "k3":
        return k3
    ratio = (new - old).exp()
    to_come = torch.stack([(old - reference)[i + 1 :].sum() for i in range(length)])
    return ratio * k3 + (ratio - 1) * to_come


def importance(config: PPOConfig, terms: RolloutTerms, row: int, length: int) -> Tensor:
    """min(pi / pi_sampler, C) of each token or of the response, before the first step (truncated importance sampling)."""
    if terms.sampled is None or config.importance == "none":
        return torch.ones(length).double()
    ratio = (terms.responses.before[row, :length] - terms.sampled[row, :length]).exp()
    return (ratio if config.importance == "token" else ratio.prod().repeat(length)).clip(max=config.importance_clip)


def coefficient(config: PPOConfig, earlier_kl: tuple[float, ...]) -> float:
    """beta, moved by a proportional controller after every update (1909.08593, section 2.2)."""
    beta = config.kl_coef
    horizon = 10 * config.batch_size if config.kl_horizon is None else config.kl_horizon
    for kl in earlier_kl:
        if config.kl_target > 0:
            error = (kl - config.kl_target) / config.kl_target
            beta *= 1 + max(-0.2, min(error, 0.2)) * config.batch_size / horizon
    return beta


def reward(config: PPOConfig, terms: RolloutTerms, row: int, kl_coef: float, log_ratio: Tensor) -> Tensor:
    """-beta log(pi / pi_ref) for every token and the score for the last one (1909.08593, equation 2)."""
    score = terms.scores[row]
    if not terms.finished[row] and config.missing_eos == "subtract":
        score = score - config.missing_eos_penalty
    if not terms.finished[row] and config.missing_eos == "replace":
        score = torch.full_like(score, -config.missing_eos_penalty)
    rewards = -kl_coef * log_ratio
    return torch.cat([rewards[:-1], rewards[-1:] + score])


def gae(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = sum over l of (gamma lambda)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t (1506.02438, equation 16)."""
    ahead = torch.cat([values[1:], torch.zeros(1).double()])
    delta = rewards + gamma * ahead - values
    return torch.stack(
        [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(delta))) for t in range(len(delta))]  # type: ignore[misc]
    )
