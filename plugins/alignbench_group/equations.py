"""The losses of the family as the papers write them, response by response: what every step of the algorithms is held to.

They are written anew and share no code with the algorithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignbench import RolloutTerms
from alignbench_group.config import (
    CISPOConfig,
    DAPOConfig,
    GDPOConfig,
    GroupConfig,
    GRPOConfig,
    GSPOConfig,
    MaxRLConfig,
    ReinforcePPBaselineConfig,
    ReinforcePPConfig,
    RelativeConfig,
    RLOOConfig,
    SAPOConfig,
)


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
    """Shao et al. (arXiv 2402.03300), equation 3; without lengths and deviation Liu et al. (arXiv 2503.20783), equation 3; with two
    clips and a mean over tokens Yu et al. (arXiv 2503.14476), equation 8."""
    return relative(config, terms, scores(config, terms), clipped_ratio(config))


def dapo(config: DAPOConfig, terms: RolloutTerms) -> Tensor:
    """Yu et al. (arXiv 2503.14476): equation 8 on the groups of which not all scores are equal (equation 11), which pay for the
    length by equation 13."""
    raw, last = scores(config, terms), terms.max_response_tokens
    cache = config.overlong_buffer * last
    shaped = []
    for score, length in zip(raw, terms.responses.mask.sum(1).tolist(), strict=True):
        punishment = 0.0 if length <= last - cache else (last - cache - length) / cache
        shaped.append(score + config.overlong_penalty * max(punishment, -1.0))
    kept = [
        not config.leave_out_flat or len({float(raw[i]) for i in group_of(config, row)}) > 1 for row in range(len(raw))
    ]
    return relative(config, terms, torch.stack(shaped), clipped_ratio(config), kept)


def gdpo(config: GDPOConfig, terms: RolloutTerms) -> Tensor:
    """Liu et al. (arXiv 2601.05242): within the group each part less its mean, by its deviation; their weighted sum, less its mean over
    the batch, by its deviation there. What a response pays for its KL, where it stands in the reward, is taken off that sum."""
    columns = [(1.0, terms.scores)]
    if terms.parts is not None:
        columns = list(zip(terms.parts.weights, terms.parts.values.T, strict=True))
    if config.missing_eos == "replace":
        columns = [(weight, torch.where(terms.finished, column, 0.0)) for weight, column in columns]
    if config.missing_eos != "keep":
        columns.append((config.missing_eos_penalty, torch.where(terms.finished, 0.0, -1.0).double()))
    sums = torch.zeros_like(terms.scores)
    for weight, column in columns:
        for row in range(len(sums)):
            group = torch.stack([column[i] for i in group_of(config, row)])
            deviation = group.std(correction=0) + config.std_eps if config.scale_by_std else 1.0
            sums[row] += weight * (column[row] - group.mean()) / deviation
    t = terms.responses
    if config.kl_in == "reward":
        sums = sums - config.kl_coef * (t.before.sum(1) - t.reference.sum(1))
        means = [torch.stack([sums[i] for i in group_of(config, row)]).mean() for row in range(len(sums))]
        sums = sums - torch.stack(means)
    if config.scale_by_batch:
        sums = (sums - sums.mean()) / (sums.std(correction=0) + config.std_eps)
    return of_tokens(config, terms, sums, clipped_ratio(config))


def clipped_ratio(config: GRPOConfig) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def loss(new: Tensor, old: Tensor, advantage: Tensor, weights: Tensor) -> Tensor:
        return -weights * clipped((new - old).exp(), advantage, config.clip_ratio, config.clip_ratio_high)

    return loss


def gspo(config: GSPOConfig, terms: RolloutTerms) -> Tensor:
    """Zheng et al. (arXiv 2507.18071), equations 5 to 7."""

    def loss(new: Tensor, old: Tensor, advantage: Tensor, weights: Tensor) -> Tensor:
        # As in RLOO, a token adds to the gradient of the ratio's logarithm with its own weight.
        moved = (weights * (new - new.detach())).mean()
        ratio = ((new.detach() - old).mean() + moved).exp()
        # Of the response: the mean over tokens leaves it as it is.
        return -clipped(ratio, advantage, config.clip_ratio, config.clip_ratio_high).expand_as(new)

    return relative(config, terms, scores(config, terms), loss)


def cispo(config: CISPOConfig, terms: RolloutTerms) -> Tensor:
    """MiniMax (arXiv 2506.13585), equations 4 and 5, without a lower bound."""

    def loss(new: Tensor, old: Tensor, advantage: Tensor, weights: Tensor) -> Tensor:
        return -weights * (new - old).exp().clip(max=config.ratio_limit).detach() * advantage * new

    return relative(config, terms, scores(config, terms), loss)


def sapo(config: SAPOConfig, terms: RolloutTerms) -> Tensor:
    """Gao et al. (arXiv 2511.20347): the gate of section 3."""

    def loss(new: Tensor, old: Tensor, advantage: Tensor, weights: Tensor) -> Tensor:
        tau = config.gate_positive if float(advantage) > 0 else config.gate_negative
        return -weights * 4 / tau / (1 + (-tau * ((new - old).exp() - 1)).exp()) * advantage

    return relative(config, terms, scores(config, terms), loss)


def relative(
    config: RelativeConfig,
    terms: RolloutTerms,
    raw: Tensor,
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    kept: Sequence[bool] = (),
) -> Tensor:
    """`of_tokens` by each response's advantage in its group."""
    t = terms.responses
    rewards = raw if config.kl_in == "loss" else raw - config.kl_coef * (t.before.sum(1) - t.reference.sum(1))
    advantages = []
    for row in range(len(rewards)):
        group = torch.stack([rewards[i] for i in group_of(config, row)])
        divisor = group.std(correction=0) + config.std_eps if config.scale_by_std else 1.0
        advantages.append((rewards[row] - group.mean()) / divisor)
    return of_tokens(config, terms, torch.stack(advantages), loss, kept)


def of_tokens(
    config: RelativeConfig,
    terms: RolloutTerms,
    advantages: Tensor,
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    kept: Sequence[bool] = (),
) -> Tensor:
    """A loss of every token by its response's advantage, and by equation 4 of GRPO the KL; then means over the responses that are
    `kept`."""
    t, in_loss = terms.responses, config.kl_in == "loss"
    responses = []
    for row in terms.rows.tolist():
        if kept and not kept[row]:
            continue
        new, old, reference = (part[row][t.mask[row]] for part in (t.logprobs, t.before, t.reference))
        weights = importance(config, terms, row)[t.mask[row]]
        tokens = loss(new, old, advantages[row], weights)
        if in_loss:
            # Equation 4 is k3: pi_ref / pi - log(pi_ref / pi) - 1.
            k3 = (reference - new).exp() - (reference - new) - 1
            kl = k3 if config.kl_estimator == "k3" else (new - reference) ** 2 / 2
            tokens = tokens + config.kl_coef * weights * kl
        responses.append(tokens)
    if not responses:
        return torch.zeros(()).double()
    if config.divides_by == "token":
        return torch.cat(responses).mean()
    means = [tokens.mean() if config.divides_by == "response" else tokens.sum() for tokens in responses]
    return torch.stack(means).mean()


def reinforce_pp(config: ReinforcePPConfig, terms: RolloutTerms) -> Tensor:
    """Hu et al. (arXiv 2501.03262), equations of section 3: A_t = r - beta sum of the KL from t on, normalised over the batch."""
    return normalised(config, terms, scores(config, terms), kl_in_loss=False)


def reinforce_pp_baseline(config: ReinforcePPBaselineConfig, terms: RolloutTerms) -> Tensor:
    """The same less the mean of the group, with k2 in the loss."""
    raw = scores(config, terms)
    means = [torch.stack([raw[i] for i in group_of(config, row)]).mean() for row in range(len(raw))]
    return normalised(config, terms, raw - torch.stack(means), kl_in_loss=config.kl_in == "loss")


def normalised(
    config: ReinforcePPConfig | ReinforcePPBaselineConfig, terms: RolloutTerms, worth: Tensor, *, kl_in_loss: bool
) -> Tensor:
    t = terms.responses
    returns = []
    for row in range(len(worth)):
        apart = (t.before[row] - t.reference[row])[t.mask[row]]
        price = 0.0 if kl_in_loss else config.kl_coef
        returns.append(torch.stack([worth[row] - price * apart[i:].sum() for i in range(len(apart))]))
    everything = torch.cat(returns)
    mean, deviation = everything.mean(), everything.std(correction=0)
    losses = []
    for row in terms.rows.tolist():
        new, old, reference = (part[row][t.mask[row]] for part in (t.logprobs, t.before, t.reference))
        tokens = -clipped((new - old).exp(), (returns[row] - mean) / deviation, config.clip_ratio)
        if kl_in_loss:
            tokens = tokens + config.kl_coef * (new - reference) ** 2 / 2
        losses.append(importance(config, terms, row)[t.mask[row]] * tokens)
    return torch.cat(losses).mean()


def maxrl(config: MaxRLConfig, terms: RolloutTerms) -> Tensor:
    """Tajwar, Zeng et al. (arXiv 2602.02710), the estimator with its control variate: (r - rate) / rate, 0 where none succeeds; the KL of
    a response in its reward, less that of the others."""
    t, raw = terms.responses, scores(config, terms)
    kl = t.before.sum(1) - t.reference.sum(1)
    total = torch.zeros(()).double()
    for row in terms.rows.tolist():
        group = group_of(config, row)
        succeeded = sum(bool(raw[i] > config.success_above) for i in group)
        rate, own = succeeded / len(group), float(raw[row] > config.success_above)
        others = [kl[i] for i in group if i != row]
        advantage = (own - rate) / rate if succeeded else 0.0
        priced = advantage - config.kl_coef * (kl[row] - sum(others) / len(others))
        new, old = (part[row][t.mask[row]] for part in (t.logprobs, t.before))
        tokens = clipped((new - old).exp(), priced, config.clip_ratio)
        total = total - (importance(config, terms, row)[t.mask[row]] * tokens).sum()
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


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float | None = None) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clip(1 - low, 1 + (low if high is None else high)) * advantage)
