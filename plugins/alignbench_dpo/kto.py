"""KTO: each response of a pair is judged alone, against what the policy gains on responses to other prompts."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from alignbench import REFERENCE, Policy, PreferenceBatch, Seeds, Sequences, UpdateReport, functional
from alignbench_dpo.config import KTOConfig
from alignbench_dpo.losses import kto_loss
from alignbench_dpo.pairs import Objective, PairLearner, Side


class KTO(PairLearner):
    """Ethayarajh et al. (arXiv 2402.01306): the chosen are desirable, the rejected undesirable.

    No optimum is known: the loss saturates on both sides, and its reference point moves with the policy."""

    def __init__(self, config: KTOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy, updates)
        self._config = config

    def update(self, batch: PreferenceBatch) -> UpdateReport:
        # 1. The reference point z0, before the step; no gradient flows through it.
        mismatched = mismatch(batch)
        z0 = torch.zeros((), device=batch.chosen.response_ids.device)
        if mismatched is not None:
            with torch.no_grad():
                ratios = functional.summed_logprobs(self._policy, mismatched) - functional.summed_logprobs(
                    self._policy, mismatched, role=REFERENCE
                )
            z0 = ratios.mean().clamp(min=0)

        # 2. One step on all responses of the batch.
        learning_rate = self._optimizer.next_update()
        measured = self._step(batch, partial(self._judge, z0=z0))
        figures = {"z0": float(z0), "mismatched": float(len(mismatched or ())), "learning_rate": learning_rate}
        return UpdateReport({**measured, **figures}, optimizer_steps=1)

    def _judge(self, chosen: Side, rejected: Side, probability: Tensor | None, *, z0: Tensor) -> Objective:
        config = self._config
        loss = kto_loss(
            chosen.log_ratio, rejected.log_ratio, z0, config.beta, config.desirable_weight, config.undesirable_weight
        )
        return Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)


def mismatch(batch: PreferenceBatch) -> Sequences | None:
    """The batch's prompts, each with both responses of another prompt's pair; None where no pair has another prompt.

    The paper shifts responses against prompts by one. A batch may hold several pairs of one prompt, so pairs are sorted
    by prompt first, the most frequent in front, and shifted by its frequency: then a pair meets its own prompt only where
    one prompt has more than half of all pairs, and those few are left out."""
    shown = batch.chosen.prompt_ids.masked_fill(~batch.chosen.prompt_mask.bool(), -1)
    prompt, count = shown.unique(dim=0, return_inverse=True, return_counts=True)[1:]
    order = (-count[prompt] * len(prompt) + prompt).argsort(stable=True)
    donor = torch.empty_like(order)
    donor[order] = order.roll(-int(count.max()))
    kept = (prompt != prompt[donor]).nonzero().squeeze(1)
    if not len(kept):
        return None
    asked = batch.chosen
    chosen, rejected = (
        Sequences(
            asked.prompt_ids[kept],
            asked.prompt_mask[kept],
            side.response_ids[donor[kept]],
            side.response_mask[donor[kept]],
        )
        for side in (batch.chosen, batch.rejected)
    )
    return functional.stacked(chosen, rejected)
