"""What every one of them does with a rollout before its step: compare neighbours, ask the reference, measure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alignbench import POLICY, REFERENCE, ExactProblem, Policy, PreferenceBatch, ScoredRollout, Source, functional
from alignbench_dpo.sampled.config import NashMDConfig, OnlineIPOConfig, SampledConfig
from alignbench_dpo.sampled.equilibrium import equilibrium


@dataclass(frozen=True)
class Compared:
    """A rollout of B responses as pairs of neighbours: `wins` [B / 2] is the probability that the first of a pair, rows 0, 2, 4, ...,
    beats the second; `ref_logprobs` [B] are of whole responses. `kl` and `reward` of the `figures` are of the policy's own responses, where it drew
    any; `length` and `eos_rate` of all."""

    batch: ScoredRollout
    wins: Tensor
    ref_logprobs: Tensor
    figures: dict[str, float]

    def preferences(self, *, by_score: bool) -> PreferenceBatch:
        """The pairs with P(chosen preferred): chosen is the likely winner, or else the first of each pair."""
        first = torch.arange(0, 2 * len(self.wins), 2, device=self.wins.device)
        lost = (self.wins < 0.5) & by_score
        chosen, rejected = torch.where(lost, first + 1, first), torch.where(lost, first, first + 1)
        sequences = self.batch.rollout.samples.sequences
        return PreferenceBatch(
            sequences.select(chosen),
            sequences.select(rejected),
            torch.where(lost, 1 - self.wins, self.wins),
            self.ref_logprobs[chosen],
            self.ref_logprobs[rejected],
        )


def compared(policy: Policy, config: SampledConfig, batch: ScoredRollout) -> Compared:
    """Raises NonFiniteError for scores that are not finite."""
    samples = batch.rollout.samples
    sequences, mask = samples.sequences, samples.sequences.response_mask.bool()
    functional.require_finite("the reward", batch.scores, hint="Check the reward source.")
    scores = functional.shape_scores(batch.scores, samples.finished, config.missing_eos, config.missing_eos_penalty)
    gaps = scores[0::2] - scores[1::2]
    wins = win_probability(gaps, config)
    # The policy's are recomputed: a sampler's rounding, summed over a response, would pass for a KL.
    with torch.no_grad():
        mine, ref = (
            policy.logprobs(sequences, role=role, temperature=config.temperature).logprobs
            for role in (POLICY, REFERENCE)
        )
    own = torch.tensor([source == Source(POLICY) for source in config.sources], device=scores.device)
    own = own.repeat(len(scores) // len(own))
    figures = {
        "score_gap": float(gaps.abs().mean()),
        "ties": float((gaps == 0).sum()),
        "length": float(mask.sum(1).float().mean()),
        "eos_rate": float(samples.finished.float().mean()),
    }
    log_ratio = functional.sequence_kl(mine, ref, mask)
    # Where a mixture draws all responses, their log-ratio is no KL of the policy.
    figures |= {"kl": float(log_ratio[own].mean())} if bool(own.any()) else {"log_ratio": float(log_ratio.mean())}
    figures["reward"] = float((batch.scores[own] if bool(own.any()) else batch.scores).mean())
    return Compared(batch, wins, functional.masked_sum(ref, mask, dim=1), figures)


def win_probability(gaps: Tensor, config: SampledConfig) -> Tensor:
    """P(a response beats another) by how much its score is above."""
    return torch.sigmoid(gaps) if config.labels == "soft" else 0.5 * (1 + gaps.sign())


def self_play_optimum(config: OnlineIPOConfig | NashMDConfig, problem: ExactProblem) -> Tensor | None:
    """The policy that answers its own opponent best; see `equilibrium`. None where the missing-EOS rule cannot be told, and where the policy
    is not what is sampled (a temperature other than 1)."""
    scores = functional.exact_scores(problem, config.missing_eos, config.missing_eos_penalty)
    if scores is None or config.temperature != 1:
        return None
    wins = win_probability(scores[:, :, None] - scores[:, None, :], config)
    return equilibrium(problem, wins, tau=config.tau, share=config.reference_share)
