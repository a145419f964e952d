"""The losses of online IPO, XPO and Nash-MD as the papers write them: what every step is held to. They share no code with what trains."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import RolloutTerms
from alignbench_dpo.equations import log_ratio, shaped
from alignbench_dpo.sampled.config import NashMDConfig, OnlineIPOConfig, SampledConfig, XPOConfig


def online_ipo(config: OnlineIPOConfig, terms: RolloutTerms) -> Tensor:
    """arXiv 2403.08635: IPO's loss in the mean over who wins, up to a constant, of pairs that are drawn without gradient."""
    ratios = log_ratio(terms.responses)
    losses = []
    for row, wins in beaten(config, terms):
        h = ratios[row] - ratios[row + 1]
        losses.append((h - (wins - 0.5) / config.tau) ** 2)
    return torch.stack(losses).mean()


def xpo(config: XPOConfig, terms: RolloutTerms) -> Tensor:
    """arXiv 2405.21046, algorithm 1, of the batch that was drawn last: rows 1, 3, 5, ... are the reference's."""
    ratios, logprobs = log_ratio(terms.responses), terms.responses.logprobs.sum(1)
    losses = []
    for row, wins in beaten(config, terms):
        likely = torch.sigmoid(config.beta * (ratios[row] - ratios[row + 1]))
        losses.append(-wins * likely.log() - (1 - wins) * (1 - likely).log() + config.alpha * logprobs[row + 1])
    return torch.stack(losses).mean()


def nash_md(config: NashMDConfig, terms: RolloutTerms) -> Tensor:
    """arXiv 2312.00886, Nash-MD-PG: its gradient is grad log pi(y) (P(y beats y') - 1/2 - tau log pi(y) / pi_ref(y)), turned."""
    ratios, logprobs = log_ratio(terms.responses).detach(), terms.responses.logprobs.sum(1)
    losses = [-logprobs[row] * (wins - 0.5 - config.tau * ratios[row]) for row, wins in beaten(config, terms)]
    return torch.stack(losses).mean()


def beaten(config: SampledConfig, terms: RolloutTerms) -> list[tuple[int, Tensor]]:
    """The first row of each pair, and the probability that it beats the second."""
    scores = shaped(config.missing_eos, config.missing_eos_penalty, terms)
    found = []
    for row in range(0, len(scores), 2):
        gap = scores[row] - scores[row + 1]
        wins = 1 / (1 + torch.exp(-gap)) if config.labels == "soft" else (gap > 0).double() + 0.5 * (gap == 0).double()
        found.append((row, wins))
    return found
