"""DPO-Positive (Pal et al., arXiv 2402.13228): an algorithm that learns from pairs, in a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from alignbench import (
    ExactProblem,
    PairTerms,
    Policy,
    PolicyOptimizer,
    PreferenceBatch,
    Seeds,
    UpdateReport,
    functional,
)
from alignbench_example.config import DPOPConfig


class DPOP(PolicyOptimizer[PreferenceBatch]):
    """One optimizer step per batch of pairs."""

    shares_batches = True

    def __init__(self, config: DPOPConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        self._config, self._policy = config, policy
        self._optimizer = functional.ScheduledAdamW(config, {"policy": policy.trainable()}, updates)

    @classmethod
    def optimum(cls, config: DPOPConfig, problem: ExactProblem) -> torch.Tensor | None:
        """DPO's where the penalty is left out. With it none is known: it pulls at each pair whose chosen response has become less likely."""
        if config.dpop_lambda or config.pairs != "all":
            return None
        return functional.kl_optimum(problem.reference, problem.rewards, config.beta)

    @classmethod
    def stated_loss(cls, config: DPOPConfig, terms: PairTerms) -> torch.Tensor:
        """The penalty stands inside of the logistic, times beta as the margin is."""
        ratios = [(side.logprobs - side.reference).sum(1) for side in (terms.chosen, terms.rejected)]
        lost = torch.clamp(-ratios[0], min=0)
        return -torch.sigmoid(config.beta * (ratios[0] - ratios[1] - config.dpop_lambda * lost)).log().mean()

    def update(self, batch: PreferenceBatch) -> UpdateReport:
        config, sums = self._config, Counter[str]()
        learning_rate = self._optimizer.next_update()
        self._optimizer.zero_grad()
        for rows in functional.micro_batches(batch.chosen, torch.arange(len(batch)), config.micro_batch_size):
            part = batch.select(rows)
            assert part.ref_chosen is not None and part.ref_rejected is not None, "uses_reference is True"
            # Both sides in one pass: a policy may read their prompt once.
            both = functional.summed_logprobs(self._policy, functional.stacked(part.chosen, part.rejected))
            chosen, rejected = both[: len(part)] - part.ref_chosen, both[len(part) :] - part.ref_rejected
            loss = -logsigmoid(config.beta * (chosen - rejected - config.dpop_lambda * torch.relu(-chosen)))
            functional.require_finite("the preference loss", loss.detach(), hint="Lower the learning rate.")
            # Divided by the pairs of the whole batch: the step does not depend on micro_batch_size.
            (loss.sum() / len(batch)).backward()
            figures = {"loss": loss, "accuracy": (chosen > rejected).float(), "log_ratio_chosen": chosen}
            figures |= {"reward_chosen": config.beta * chosen, "reward_rejected": config.beta * rejected}
            sums.update({name: float(value.detach().sum()) for name, value in figures.items()})
        norms = self._optimizer.step()
        means = {name: total / len(batch) for name, total in functional.across_processes(sums).items()}
        means |= {"margin": means["reward_chosen"] - means["reward_rejected"], "learning_rate": learning_rate}
        return UpdateReport({**means, "gradient_norm": norms["policy"]}, optimizer_steps=1)

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state)
