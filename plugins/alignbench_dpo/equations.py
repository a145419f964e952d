"""The losses of the family as the papers write them: what every step of the algorithms is held to.

They are written anew and share no code with losses.py, pairs.py and their like. s is the logistic function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import LabelTerms, PairTerms, ResponseTerms, RolloutTerms
from alignbench_dpo.config import (
    APOConfig,
    BCOConfig,
    CPOConfig,
    DPOConfig,
    EXOConfig,
    IPOConfig,
    KTOConfig,
    LengthNormalisedDPOConfig,
    OnlineDPOConfig,
    ORPOConfig,
    SimPOConfig,
    SPPOConfig,
    WPOConfig,
)
from alignbench_dpo.config_further import AOTConfig, IterativeDPOConfig, TDPOConfig


def dpo(config: DPOConfig, terms: PairTerms) -> Tensor:
    label = terms.probability if config.soft_labels else torch.ones_like(terms.probability)
    return pairwise(config, log_ratio(terms.chosen) - log_ratio(terms.rejected), label).mean()


def pairwise(config: DPOConfig | OnlineDPOConfig, h: Tensor, label: Tensor) -> Tensor:
    """Of margins h and labels P(chosen preferred)."""
    beta, epsilon = config.beta, config.label_smoothing
    right, wrong = -torch.sigmoid(beta * h).log(), -torch.sigmoid(-beta * h).log()
    if config.loss == "hinge":  # SLiC-HF (arXiv 2305.10425, equation 1) on log-ratios
        return torch.maximum(1 - beta * h, torch.zeros_like(h))
    if config.loss == "ipo":  # arXiv 2310.12036, equation 17; a label p is a mixture of h and -h
        return (h - (label - 0.5) / beta) ** 2
    if config.loss == "robust":  # arXiv 2403.00409, equation 12
        return ((1 - epsilon) * right - epsilon * wrong) / (1 - 2 * epsilon)
    label = label - epsilon  # conservative: of a certain label 1 - epsilon (Mitchell 2023)
    return label * right + (1 - label) * wrong  # arXiv 2305.18290, equation 7


def ipo(config: IPOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2310.12036, equation 17."""
    label = terms.probability if config.soft_labels else torch.ones_like(terms.probability)
    h = log_ratio(terms.chosen) - log_ratio(terms.rejected)
    return ((h - (label - 0.5) / config.tau) ** 2).mean()


def orpo(config: ORPOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2403.07691, equations 3 to 7."""
    likely = [per_token(side).exp() for side in (terms.chosen, terms.rejected)]
    odds = [p / (1 - p) for p in likely]
    imitation = -likely[0].log()
    return (imitation - config.orpo_lambda * torch.sigmoid((odds[0] / odds[1]).log()).log()).mean()


def simpo(config: SimPOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2405.14734, equation 6; with alpha CPO-SimPO, which adds CPO's imitation."""
    rewards = [config.beta * per_token(side) for side in (terms.chosen, terms.rejected)]
    preferred = -torch.sigmoid(rewards[0] - rewards[1] - config.gamma).log()
    return (preferred - config.alpha * per_token(terms.chosen)).mean()


def cpo(config: CPOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2401.08417, equation 3, with the likelihood of a token."""
    rewards = [config.beta * side.logprobs.sum(1) for side in (terms.chosen, terms.rejected)]
    return (-torch.sigmoid(rewards[0] - rewards[1]).log() - config.alpha * per_token(terms.chosen)).mean()


def apo(config: APOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2408.06266, equations 7 and 8, with a 1 in front."""
    won, lost = (config.beta * log_ratio(side) for side in (terms.chosen, terms.rejected))
    if config.anchor == "zero":
        return (1 - torch.sigmoid(won) + torch.sigmoid(lost)).mean()
    return (1 + torch.sigmoid(won) - torch.sigmoid(won - lost)).mean()


def exo(config: EXOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2402.00856, equation 16: the KL of the policy's choice between two responses from the reward's."""
    epsilon = config.label_smoothing
    p = terms.probability if config.soft_labels else torch.full_like(terms.probability, 1 - epsilon)
    q = torch.sigmoid(config.beta * (log_ratio(terms.chosen) - log_ratio(terms.rejected)))
    return (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()


def sppo(config: SPPOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2405.00675, equation 4.7, eta = 1 / beta: of both responses, which win with p and 1 - p."""
    p = terms.probability if config.soft_labels else torch.ones_like(terms.probability)
    sides = ((terms.chosen, p), (terms.rejected, 1 - p))
    return sum(
        ((log_ratio(side) - (wins - 0.5) / config.beta) ** 2 for side, wins in sides), torch.zeros_like(p)
    ).mean()


def length_normalised_dpo(config: LengthNormalisedDPOConfig, terms: PairTerms) -> Tensor:
    """DPO on log-ratios of a token (arXiv 2411.15124)."""
    p = terms.probability if config.soft_labels else torch.ones_like(terms.probability)
    rewards = [config.beta * log_ratio(side) / side.mask.sum(1) for side in (terms.chosen, terms.rejected)]
    won = torch.sigmoid(rewards[0] - rewards[1])
    return (-p * won.log() - (1 - p) * (1 - won).log()).mean()


def wpo(config: WPOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2406.11827, equation 2: weights are probabilities of a token, which get no gradient."""
    p = terms.probability if config.soft_labels else torch.ones_like(terms.probability)
    won = torch.sigmoid(config.beta * (log_ratio(terms.chosen) - log_ratio(terms.rejected)))
    weights = [per_token(side).detach().exp() for side in (terms.chosen, terms.rejected)]
    return (weights[0] * weights[1] * (-p * won.log() - (1 - p) * (1 - won).log())).mean()


def aot(config: AOTConfig, terms: PairTerms) -> Tensor:
    """arXiv 2406.05882: quantile against quantile. Paired, of log pi(y_w) / pi(y_l) under the policy and under the reference; unpaired, of
    log pi / pi_ref of the chosen and of the rejected responses."""
    above, below = log_ratio(terms.chosen), log_ratio(terms.rejected)
    if config.form == "paired":
        above, below = (
            getattr(terms.chosen, who).sum(1) - getattr(terms.rejected, who).sum(1) for who in ("logprobs", "reference")
        )
    gap = above.sort().values - below.sort().values
    if config.loss == "hinge":
        return torch.maximum(1 - config.beta * gap, torch.zeros_like(gap)).mean()
    if config.loss == "ipo":
        return ((gap - 1 / (2 * config.beta)) ** 2).mean()
    return -torch.sigmoid(config.beta * gap).log().mean()


def tdpo(config: TDPOConfig, terms: PairTerms) -> Tensor:
    """arXiv 2404.11999: u - delta of TDPO1, u - alpha delta_2 of TDPO2, times beta."""
    p = terms.probability if config.soft_labels else torch.ones_like(terms.probability)
    spent = [sequential_kl(side) for side in (terms.chosen, terms.rejected)]
    delta = spent[1] - spent[0] if config.variant == "tdpo1" else config.alpha * (spent[1] - spent[0].detach())
    won = torch.sigmoid(config.beta * (log_ratio(terms.chosen) - log_ratio(terms.rejected) - delta))
    return (-p * won.log() - (1 - p) * (1 - won).log()).mean()


def sequential_kl(side: ResponseTerms) -> Tensor:
    """D(x, y; pi_ref || pi), [B]: the sum over a response's tokens of KL(pi_ref || pi) before each."""
    assert side.reference_kl is not None, "of terms that are made from weights"
    return side.reference_kl.sum(1)


def bco(config: BCOConfig, terms: LabelTerms) -> Tensor:
    """arXiv 2404.04656, delta from the batch: half the sum of the mean rewards of both sides."""
    reward = config.beta * log_ratio(terms.responses)
    delta = (reward[terms.good].mean() + reward[~terms.good].mean()).detach() / 2
    sign = torch.where(terms.good, 1.0, -1.0)
    return -torch.sigmoid(sign * (reward - delta)).log().mean()


def kto(config: KTOConfig, terms: LabelTerms) -> Tensor:
    """arXiv 2402.01306, equations 7 and 8: lambda_y - v(x, y), with z0 the mean of log pi / pi_ref over responses to other prompts."""
    z0 = max(0.0, float(torch.stack([terms.across[row, other] for row, other in strangers(terms)]).mean()))
    r, losses = log_ratio(terms.responses), []
    for row, good in enumerate(terms.good.tolist()):
        weight = config.desirable_weight if good else config.undesirable_weight
        gain = r[row] - z0 if good else z0 - r[row]
        losses.append(weight - weight * torch.sigmoid(config.beta * gain))
    return torch.stack(losses).mean()


def strangers(terms: LabelTerms) -> list[tuple[int, int]]:
    """(row, row of another prompt): by prompt, the most frequent first, each with the row that is so many further on."""
    prompts = terms.prompt.tolist()
    rows = sorted(range(len(prompts)), key=lambda row: (-prompts.count(prompts[row]), prompts[row], row))
    most = prompts.count(prompts[rows[0]])
    paired = [(row, rows[(place + most) % len(rows)]) for place, row in enumerate(rows)]
    return [(row, other) for row, other in paired if prompts[row] != prompts[other]]


def online_dpo(config: OnlineDPOConfig, terms: RolloutTerms) -> Tensor:
    """arXiv 2402.04792, algorithm 1: the first of the best against the first of the worst of each prompt; equal scores give no pair."""
    ratios = log_ratio(terms.responses)
    scores = shaped(config.missing_eos, config.missing_eos_penalty, terms)
    losses = []
    for first in range(0, len(scores), config.samples_per_prompt):
        group = range(first, first + config.samples_per_prompt)
        best = max(group, key=lambda row: (float(scores[row]), -row))
        worst = min(group, key=lambda row: (float(scores[row]), row))
        if scores[best] > scores[worst]:
            gap = scores[best] - scores[worst]
            label = torch.sigmoid(gap) if config.labels == "soft" else torch.ones_like(gap)
            losses.append(pairwise(config, ratios[best] - ratios[worst], label))
    return torch.stack(losses).mean()


def iterative_dpo(config: IterativeDPOConfig, terms: RolloutTerms) -> Tensor:
    """arXiv 2312.11456 (reference=sft), 2401.10020 (reference=round): DPO on the step's prompts, by its pairs."""
    own, size = terms.responses.logprobs.sum(1), config.samples_per_prompt
    scores = shaped(config.missing_eos, config.missing_eos_penalty, terms)
    known = terms.responses.before if config.reference == "round" else terms.responses.reference
    ratios, losses = own - known.sum(1), []
    for prompt in sorted({row // size for row in terms.rows.tolist()}):
        group = sorted(range(prompt * size, prompt * size + size), key=lambda row: (-float(scores[row]), row))
        ordered = [(a, b) for place, a in enumerate(group) for b in group[place + 1 :] if scores[a] > scores[b]]
        if config.pairs == "best_worst":
            last = min(group, key=lambda row: (float(scores[row]), row))
            ordered = [(group[0], last)]
        for better, worse in ordered:
            gap = scores[better] - scores[worse]
            label = torch.sigmoid(gap) if config.labels == "soft" else torch.ones_like(gap)
            losses.append(pairwise(config, ratios[better] - ratios[worse], label))
    return torch.stack(losses).mean()


def shaped(rule: str, penalty: float, terms: RolloutTerms) -> Tensor:
    """Lowered or replaced where a response was cut off."""
    if rule == "keep":
        return terms.scores
    start = terms.scores if rule == "subtract" else torch.zeros_like(terms.scores)
    return torch.where(terms.finished, terms.scores, start - penalty)


def log_ratio(side: ResponseTerms) -> Tensor:
    """log pi(y|x) / pi_ref(y|x), [B]: summed over tokens."""
    return side.logprobs.sum(1) - side.reference.sum(1)


def per_token(side: ResponseTerms) -> Tensor:
    """log pi(y|x) / |y|, [B]."""
    return side.logprobs.sum(1) / side.mask.sum(1)
