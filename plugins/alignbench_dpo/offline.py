"""The algorithms whose loss needs nothing but a pair: DPO, IPO, ORPO, SimPO and CPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import ExactProblem, PairTerms, Policy, Seeds, functional
from alignbench_dpo import equations
from alignbench_dpo.config import CPOConfig, DPOConfig, IPOConfig, ORPOConfig, SimPOConfig
from alignbench_dpo.losses import dpo_loss, imitation_loss, ipo_loss, log_odds, orpo_loss, sigmoid_loss, simpo_loss
from alignbench_dpo.optimum import identity_optimum
from alignbench_dpo.pairs import Objective, PairwiseOptimizer, Side, known


class DPO(PairwiseOptimizer):
    """Rafailov et al. (arXiv 2305.18290): the reward of a response is beta log pi / pi_ref, fitted to preferences."""

    def __init__(self, config: DPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def optimum(cls, config: DPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / beta) / Z for the sigmoid loss, whichever pairs it sees, since each pair's own optimum is met.

        With hard labels this holds for pairs=all: the first and last of a ranking are further apart than Bradley-Terry
        says of two responses. None with label smoothing and for hinge and robust: labels other than the true
        probabilities have no rewards that explain them all, and a hinge asks for order and not for differences."""
        if config.loss == "ipo":
            return identity_optimum(problem, config.beta) if config.pairs == "all" else None
        unbiased = config.soft_labels or config.pairs == "all"
        plain = config.loss in ("sigmoid", "robust") and config.label_smoothing == 0
        return functional.kl_optimum(problem.reference, problem.rewards, config.beta) if unbiased and plain else None

    @classmethod
    def exact_variants(cls) -> Sequence[Mapping[str, object]]:
        """The loss that has an optimum of its own beside the sigmoid's."""
        return ({"loss": "ipo"},)

    @classmethod
    def stated_loss(cls, config: DPOConfig, terms: PairTerms) -> Tensor:
        return equations.dpo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        loss = dpo_loss(
            chosen.log_ratio - rejected.log_ratio,
            config.beta,
            loss=config.loss,
            label_smoothing=config.label_smoothing,
            probability=known(probability) if config.soft_labels else None,
        )
        return Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)


class IPO(PairwiseOptimizer):
    """Azar et al. (arXiv 2310.12036): E[P(y beats pi_ref)] - tau KL(pi || pi_ref), with no reward in between.

    Log-probabilities are summed over tokens, as in the paper."""

    def __init__(self, config: IPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def optimum(cls, config: IPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(E_{y' ~ pi_ref}[P(y over y')] / tau) / Z. None for pairs=best_worst: the squared loss weighs pairs by
        how often they come, and the first and last of a ranking are no independent draws."""
        return identity_optimum(problem, config.tau) if config.pairs == "all" else None

    @classmethod
    def stated_loss(cls, config: IPOConfig, terms: PairTerms) -> Tensor:
        return equations.ipo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        label = known(probability) if config.soft_labels else 1.0
        loss = ipo_loss(chosen.log_ratio - rejected.log_ratio, config.tau, label)
        return Objective(loss, config.tau * chosen.log_ratio, config.tau * rejected.log_ratio)


class ORPO(PairwiseOptimizer):
    """Hong et al. (arXiv 2403.07691). No optimum is known: no reference holds the policy, and imitation and odds ratio
    pull to different places."""

    def __init__(self, config: ORPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def stated_loss(cls, config: ORPOConfig, terms: PairTerms) -> Tensor:
        return equations.orpo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        """The implicit reward is the log odds of a response's mean token."""
        loss = orpo_loss(chosen.mean, rejected.mean, self._config.orpo_lambda)
        with torch.no_grad():
            return Objective(loss, log_odds(chosen.mean), log_odds(rejected.mean))


class SimPO(PairwiseOptimizer):
    """Meng et al. (arXiv 2405.14734). No optimum is known: mean log-probabilities are not those of a distribution over
    responses, and no reference holds the policy."""

    def __init__(self, config: SimPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def stated_loss(cls, config: SimPOConfig, terms: PairTerms) -> Tensor:
        return equations.simpo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        loss = simpo_loss(chosen.mean, rejected.mean, config.beta, config.gamma)
        loss = loss + config.alpha * imitation_loss(chosen.mean)
        return Objective(loss, config.beta * chosen.mean, config.beta * rejected.mean)


class CPO(PairwiseOptimizer):
    """Xu et al. (arXiv 2401.08417): DPO's loss with a reference that gives every response alike, which costs no pass of its own."""

    def __init__(self, config: CPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy=policy, updates=updates, seeds=seeds)
        self._config = config

    @classmethod
    def optimum(cls, config: CPOConfig, problem: ExactProblem) -> Tensor | None:
        """exp(r / beta) / Z without imitation, for pairs=all: DPO's from a uniform reference, whoever drew the pairs. None with it: the likelihood
        of chosen responses pulls elsewhere."""
        if config.alpha or config.pairs != "all":
            return None
        return torch.softmax(problem.rewards / config.beta, 1)

    @classmethod
    def stated_loss(cls, config: CPOConfig, terms: PairTerms) -> Tensor:
        return equations.cpo(config, terms)

    def judge(self, chosen: Side, rejected: Side, probability: Tensor | None) -> Objective:
        config = self._config
        loss = sigmoid_loss(chosen.logprob - rejected.logprob, config.beta) + config.alpha * imitation_loss(chosen.mean)
        return Objective(loss, config.beta * chosen.logprob, config.beta * rejected.logprob)
