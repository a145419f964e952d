"""Online IPO and IPO-MD (Calandriello et al., arXiv 2403.08635)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from alignbench import ExactProblem, Policy, RolloutTerms, ScoredRollout, Seeds, UpdateReport
from alignbench_dpo.losses import ipo_loss
from alignbench_dpo.pairs import Objective, PairLearner, Side, known
from alignbench_dpo.sampled import equations
from alignbench_dpo.sampled.config import OnlineIPOConfig
from alignbench_dpo.sampled.pairs import compared, self_play_optimum


class OnlineIPO(PairLearner):
    """One step of IPO's loss per rollout, with no gradient through the sampling: the gradient of self-play."""

    def __init__(self, config: OnlineIPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy, updates, temperature=config.temperature)
        self._config = config

    @classmethod
    def optimum(cls, config: OnlineIPOConfig, problem: ExactProblem) -> Tensor | None:
        """The policy that is IPO's optimum for pairs which itself, or its mixture with the reference, draws: see `self_play_optimum`."""
        return self_play_optimum(config, problem)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """Labels with less noise, and a price at which the equilibrium is away from the reference."""
        return {"labels": "soft", "tau": 0.2}

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """IPO-MD; and scores that always decide."""
        return {"reference_share": 0.5, "tau": 0.1}, {"labels": "hard", "missing_eos": "keep"}

    @classmethod
    def stated_loss(cls, config: OnlineIPOConfig, terms: RolloutTerms) -> Tensor:
        return equations.online_ipo(config, terms)

    def update(self, batch: ScoredRollout) -> UpdateReport:
        found = compared(self._policy, self._config, batch)
        learning_rate = self._optimizer.next_update()
        step = self._step(found.preferences(by_score=True), self._judge)
        return UpdateReport({**found.figures, **step, "learning_rate": learning_rate}, optimizer_steps=1)

    def _judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        tau = self._config.tau
        loss = ipo_loss(chosen.log_ratio - rejected.log_ratio, tau, known(probability))
        return Objective(loss, tau * chosen.log_ratio, tau * rejected.log_ratio)
