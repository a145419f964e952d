"""The losses of RLOO and GRPO as the papers write them, response by response: what every step of the algorithms is held to.

They are written anew and share no code with rloo.py and grpo.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import RolloutTerms
from alignbench_group.config import GroupConfig, GRPOConfig, RLOOConfig


def rloo(config: RLOOConfig, terms: RolloutTerms) -> Tensor:
    """Ahmadian et al. (arXiv 2402.14740), equation 7, on R = r - beta log(pi / pi_ref) of a whole response (equation 2); later
    steps on one batch by the clipped ratio of the response (arXiv 1707.06347, equation 7)."""
    rewards = penalised(config, terms)
    total = torch.zeros(()).double()
    for row in terms.rows.tolist():
        group = group_of(config, row)
        others = [rewards[i] for i in group if i != row]
        advantage = rewards[row] - sum(others) / len(others)
        # Of the response; to the gradient of its logarithm each token adds with its own weight.
        now, weights = terms.responses.logprobs[row], importance(config, terms, row)
        moved = (weights * (now - now.detach())).sum()
        ratio = (now.detach().sum() + moved - terms.responses.before[row].sum()).exp()
        total = total - clipped(ratio, advantage, config.clip_ratio)
    return total / len(terms.rows)


def grpo(config: GRPOConfig, terms: RolloutTerms) -> Tensor:
    """Shao et al. (arXiv 2402.03300), equation 3; without lengths and deviation Liu et al. (arXiv 2503.20783), equation 3."""
    t, in_loss = terms.responses, config.kl_in == "loss"
    rewards = scores(config, terms) if in_loss else penalised(config, terms)
    total = torch.zeros(()).double()
    for row in terms.rows.tolist():
        group = torch.stack([rewards[i] for i in group_of(config, row)])
        advantage = rewards[row] - group.mean()
        if config.scale_by_std:
            advantage = advantage / (group.std(correction=0) + config.std_eps)
        new, old, reference = (part[row][t.mask[row]] for part in (t.logprobs, t.before, t.reference))
        tokens = -clipped((new - old).exp(), advantage, config.clip_ratio)
        if in_loss:
            # Equation 4 is k3: pi_ref / pi - log(pi_ref / pi) - 1.
            k3 = (reference - new).exp() - (reference - new) - 1
            tokens = tokens + config.kl_coef * (k3 if config.kl_estimator == "k3" else (new - reference) ** 2 / 2)
        tokens = importance(config, terms, row)[t.mask[row]] * tokens
        total = total + (tokens.mean() if config.length_normalisation == "response" else tokens.sum())
    return total / len(terms.rows)


def importance(config: GroupConfig, terms: RolloutTerms, row: int) -> Tensor:
    """min(pi / pi_sampler, C) of each token or of the response, before the first step (truncated importance sampling)."""
    before = terms.responses.before[row]
    if terms.sampled is None or config.importance == "none":
        return torch.ones_like(before)
    ratio = (before - terms.sampled[row]).exp()
    return (ratio if config.importance == "token" else ratio.prod().expand_as(ratio)).clip(max=config.importance_clip)


def group_of(config: GroupConfig, row: int) -> range:
    first = row - row % config.samples_per_prompt
    return range(first, first + config.samples_per_prompt)


def scores(config: GroupConfig, terms: RolloutTerms) -> Tensor:
    """Lowered or replaced where a response was cut off."""
    if config.missing_eos == "keep":
        return terms.scores
    start = terms.scores if config.missing_eos == "subtract" else torch.zeros_like(terms.scores)
    return torch.where(terms.finished, terms.scores, start - config.missing_eos_penalty)


def penalised(config: GroupConfig, terms: RolloutTerms) -> Tensor:
    t = terms.responses
    return scores(config, terms) - config.kl_coef * (t.before.sum(1) - t.reference.sum(1))


def clipped(ratio: Tensor, advantage: Tensor, clip_ratio: float) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clip(1 - clip_ratio, 1 + clip_ratio) * advantage)
