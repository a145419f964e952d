"""The algorithms that weigh a pair's log-ratios otherwise than DPO: APO, EXO, SPPO, length-normalised DPO and WPO."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from alignbench import ExactProblem, PairTerms, Policy, Seeds, functional
from alignbench_dpo import equations
from alignbench_dpo.config import APOConfig, EXOConfig, LengthNormalisedDPOConfig, SPPOConfig, WPOConfig
from alignbench_dpo.losses import apo_loss, exo_loss, on_policy_weight, sigmoid_loss, sppo_loss
from alignbench_dpo.optimum import length_normalised_optimum, regression_optimum
from alignbench_dpo.pairs import Objective, PairwiseOptimizer, Side, known


class APO(PairwiseOptimizer):
    """D'Oosterlinck et al. (arXiv 2408.06266). No optimum is known: in the mean over labels the loss of a response is linear in
    s(beta log pi / pi_ref), so that each is pushed up or down without end, until it saturates."""

    def __init__(self, config: APOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def stated_loss(cls, config: APOConfig, terms: PairTerms) -> Tensor:
        return equations.apo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        beta = self._config.beta
        loss = apo_loss(chosen.log_ratio, rejected.log_ratio, beta, self._config.anchor)
        return Objective(loss, beta * chosen.log_ratio, beta * rejected.log_ratio)


class EXO(PairwiseOptimizer):
    """Ji et al. (arXiv 2402.00856): KL(policy || reward) on a pair where DPO takes KL(reward || policy)."""

    def __init__(self, config: EXOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def optimum(cls, config: EXOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / beta) / Z with soft labels: each pair's KL is 0 where s(beta h) is its probability, whichever pairs come. None with hard
        ones: in their mean a pair asks for beta h = (2 P - 1) log((1 - epsilon) / epsilon), which no reward gives to all pairs."""
        return functional.kl_optimum(problem.reference, problem.rewards, config.beta) if config.soft_labels else None

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """Twice the usual updates: a gradient of the reverse KL is small where the policy gives a response little."""
        return {"updates": 320}

    @classmethod
    def stated_loss(cls, config: EXOConfig, terms: PairTerms) -> Tensor:
        return equations.exo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        label = known(probability) if config.soft_labels else 1 - config.label_smoothing
        loss = exo_loss(chosen.log_ratio - rejected.log_ratio, config.beta, label)
        return Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)


class SPPO(PairwiseOptimizer):
    """Wu et al. (arXiv 2405.00675): one round of self-play from the reference, on pairs that are there already."""

    def __init__(self, config: SPPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def optimum(cls, config: SPPOConfig, problem: ExactProblem) -> Tensor | None:
        """The distribution whose log-ratios come nearest to (win rate - 1/2) / beta; see `regression_optimum`. None for
        pairs=best_worst: the squares weigh pairs by how often they come."""
        return regression_optimum(problem, config.beta) if config.pairs == "all" else None

    @classmethod
    def stated_loss(cls, config: SPPOConfig, terms: PairTerms) -> Tensor:
        return equations.sppo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        label = known(probability) if config.soft_labels else 1.0
        loss = sppo_loss(chosen.log_ratio, rejected.log_ratio, config.beta, label)
        return Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)


class LengthNormalisedDPO(PairwiseOptimizer):
    """Lambert et al. (Tulu 3, arXiv 2411.15124): DPO on log-ratios divided by the tokens of their responses."""

    def __init__(self, config: LengthNormalisedDPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def optimum(cls, config: LengthNormalisedDPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(|y| (r + c(x)) / beta), where every pair's own optimum is met: as of DPO, for pairs=all or soft labels."""
        unbiased = config.soft_labels or config.pairs == "all"
        return length_normalised_optimum(problem, config.beta) if unbiased else None

    @classmethod
    def stated_loss(cls, config: LengthNormalisedDPOConfig, terms: PairTerms) -> Tensor:
        return equations.length_normalised_dpo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        rewards = [config.beta * side.log_ratio / side.tokens.clamp(min=1) for side in (chosen, rejected)]
        loss = sigmoid_loss(rewards[0] - rewards[1], 1.0, known(probability) if config.soft_labels else 1.0)
        return Objective(loss, rewards[0], rewards[1])


class WPO(PairwiseOptimizer):
    """Zhou et al. (arXiv 2406.11827), with weights as their equation 2 has them, not aligned by the policy's other tokens."""

    def __init__(self, config: WPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def optimum(cls, config: WPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / beta) / Z, as of DPO: weights do not move what every pair agrees on."""
        unbiased = config.soft_labels or config.pairs == "all"
        return functional.kl_optimum(problem.reference, problem.rewards, config.beta) if unbiased else None

    @classmethod
    def stated_loss(cls, config: WPOConfig, terms: PairTerms) -> Tensor:
        return equations.wpo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        label = known(probability) if config.soft_labels else 1.0
        loss = sigmoid_loss(chosen.log_ratio - rejected.log_ratio, config.beta, label)
        loss = on_policy_weight(chosen.mean, rejected.mean) * loss
        return Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)
