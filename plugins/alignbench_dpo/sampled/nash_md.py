"""Nash-MD, by policy gradients (Munos et al., arXiv 2312.00886)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import ExactProblem, Policy, RolloutTerms, ScoredRollout, Seeds, UpdateReport, functional
from alignbench_dpo.pairs import Learner
from alignbench_dpo.sampled import equations
from alignbench_dpo.sampled.config import NashMDConfig
from alignbench_dpo.sampled.pairs import compared, self_play_optimum


class NashMD(Learner):
    """One step of REINFORCE per rollout, on the policy's own responses: how each fared against its opponent's, less the price of its KL."""

    def __init__(self, config: NashMDConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy, updates, temperature=config.temperature)
        self._config = config

    @classmethod
    def optimum(cls, config: NashMDConfig, problem: ExactProblem) -> Tensor | None:
        """The policy that answers its own opponent best, see `self_play_optimum`."""
        return self_play_optimum(config, problem)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """Labels with less noise, a price at which the equilibrium is away from the reference, and updates enough for REINFORCE."""
        return {"labels": "soft", "tau": 0.2, "updates": 160}

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """The reference as the opponent, whose answer is IPO's optimum."""
        return ({"reference_share": 1.0},)

    @classmethod
    def stated_loss(cls, config: NashMDConfig, terms: RolloutTerms) -> Tensor:
        return equations.nash_md(config, terms)

    def update(self, batch: ScoredRollout) -> UpdateReport:
        # 1. How each response of the policy's own, rows 0, 2, 4, ..., fared.
        config, sequences = self._config, batch.rollout.samples.sequences
        found = compared(self._policy, config, batch)
        own = torch.arange(0, len(sequences), 2, device=found.wins.device)

        # 2. One step on them. Divided by all of them: the step does not depend on micro_batch_size.
        learning_rate = self._optimizer.next_update()
        self._optimizer.zero_grad()
        total = 0.0
        for rows in functional.micro_batches(sequences, own, self._micro_batch_size):
            logprobs = functional.summed_logprobs(self._policy, sequences.select(rows), temperature=config.temperature)
            loss = nash_md_loss(logprobs, found.ref_logprobs[rows], found.wins[rows // 2], config.tau)
            functional.require_finite("the Nash-MD loss", loss.detach(), hint="Lower the learning rate.")
            (loss.sum() / len(own)).backward()
            total += float(loss.detach().sum())
        norms = self._optimizer.step()
        loss_sum = functional.across_processes({"loss": total})["loss"]
        metrics = {
            **found.figures,
            "win_rate": float(found.wins.mean()),
            "loss": loss_sum / len(own),
            "gradient_norm": norms["policy"],
            "tokens": float(sequences.response_mask[own].sum()),
            "learning_rate": learning_rate,
        }
        return UpdateReport(metrics, optimizer_steps=1)


def nash_md_loss(logprobs: Tensor, ref_logprobs: Tensor, wins: Tensor, tau: float) -> Tensor:
    """-(P(y beats y') - 1/2 - tau log pi / pi_ref) log pi(y|x), the factor without gradient, [B]: arXiv 2312.00886, Nash-MD-PG, where 1/2,
    the win rate of a policy against itself, keeps the variance down."""
    advantage = wins - 0.5 - tau * (logprobs.detach() - ref_logprobs)
    return -advantage * logprobs
