"""BCO: a classifier of good and bad responses, whose logit is the implicit reward less its mean."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import LabelledBatch, LabelTerms, Policy, Seeds, UpdateReport, functional
from alignbench_dpo import equations
from alignbench_dpo.config import BCOConfig
from alignbench_dpo.kto import LabelLearner
from alignbench_dpo.losses import bco_loss


class BCO(LabelLearner):
    """Jung et al. (arXiv 2404.04656).

    No optimum is known: beta log pi / pi_ref - delta is least far off at the log odds of a response being good, and the policy's own
    normalisation leaves no room for that and for a delta that is the mean of the rewards."""

    def __init__(self, config: BCOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy, updates)
        self._config = config

    @classmethod
    def stated_loss(cls, config: BCOConfig, terms: LabelTerms) -> Tensor:
        return equations.bco(config, terms)

    def update(self, batch: LabelledBatch) -> UpdateReport:
        # 1. The reward shift delta, of the policy before the step; no gradient flows through it.
        assert batch.ref_logprobs is not None, "uses_reference is True"
        beta = self._config.beta
        with torch.no_grad():
            rewards = beta * (functional.summed_logprobs(self._policy, batch.sequences) - batch.ref_logprobs)
        sides = [rewards[side].mean() for side in (batch.good, ~batch.good) if bool(side.any())]
        shift = torch.stack(sides).mean()

        # 2. One step on all responses of the batch.
        learning_rate = self._optimizer.next_update()
        measured = self._step(batch, lambda ratio, good: bco_loss(ratio, good, shift, beta), beta, shift / beta)
        return UpdateReport({**measured, "shift": float(shift), "learning_rate": learning_rate}, optimizer_steps=1)
