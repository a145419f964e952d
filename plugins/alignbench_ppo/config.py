"""The config of PPO; the only place where its defaults stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alignbench import MISSING_EOS, CorrectedConfig, UserError, bounded, unknown_name

VALUE_INIT = ("reward", "policy")
KL_IN = ("reward", "loss")
KL_ESTIMATORS = ("unbiased", "k2", "k3")


@dataclass
class PPOConfig(CorrectedConfig):
    """PPO with a per-token KL penalty to the frozen SFT model (arXiv 1707.06347, 1909.08593, 2203.02155)."""

    scalar_roles: ClassVar[tuple[str, ...]] = ("value",)

    updates: int = 50
    """As in OptimizerConfig."""
    batch_size: int = 64
    """As in OptimizerConfig."""
    learning_rate: float = 3e-5
    """As in OptimizerConfig."""

    kl_coef: float = bounded(0.1, least=0, most=1e4)
    """Weight of the KL penalty: the objective is E[score] - kl_coef * KL, KL in nats per response."""
    kl_in: str = "reward"
    """Where the penalty stands: reward (of every token, and so in advantages and values) or loss (beside the clipped loss, where no
    value network and no clip stands between it and the policy). Both have one optimum, with kl_estimator=unbiased."""
    kl_estimator: str = "unbiased"
    """Of the KL in the loss: unbiased (k3 weighed by the probability ratio, and for each token the KL of those after it), or k2 or k3
    as they are mostly used, by which a token does not pay for what it leads to: they have other optima. Unused where kl_in=reward."""
    kl_target: float = bounded(0.0, least=0, most=1e6)
    """Target of the adaptive controller, nats per response; 0: kl_coef stays fixed."""
    kl_horizon: float | None = bounded(None, least=1)
    """Responses over which the adaptive controller corrects an error (arXiv 1909.08593, section 2.2); null: ten batches, so
    that kl_coef moves by at most 2% an update. The paper's 10000 belongs to its 2 million responses."""
    kl_stop: float = bounded(0.0, least=0, most=1e6)
    """Training stops after an update whose mean KL was above this, nats per response; 0: never."""

    epochs: int = bounded(4, least=1, most=1000)
    """Passes over each batch of rollouts."""
    minibatches: int = bounded(1, least=1)
    """Optimizer steps per epoch; batch_size must be a multiple of it."""
    clip_ratio: float = bounded(0.2, above=0, most=1e6)
    """Clipping of the probability ratio."""
    clip_value: float = bounded(0.2, least=0)
    """Clipping of the value update around the old value, in reward units; 0: none."""
    value_learning_rate: float | None = bounded(None, least=0, most=100)
    """Of the value network, under the policy's schedule; null: learning_rate."""
    value_coef: float = bounded(0.1, least=0, most=1e4)
    """Weight of the value loss in what trains the policy's weights, read with model.value_trunk=shared alone; its gradient is clipped
    to max_grad_norm apart from the policy's. A value network of its own has its step from value_learning_rate: AdamW takes no notice
    of a factor on a loss."""
    value_init: str = "reward"
    """What the value network starts from: reward (the reward model, where there is one) or policy."""
    gamma: float = bounded(1.0, above=0, most=1)
    """Discount: 1 in RLHF, where the score belongs to the whole response."""
    value_warmup: int = bounded(0, least=0, most=1e7)
    """So many of the updates, the first ones, train the value network alone, on whole returns (lambda 1) and without clip_value; the
    policy and its schedule stand still (value pretraining, arXiv 2503.01491). Of a value that shares the policy's trunk the head alone
    learns then. Their samples count in budgets as all others."""
    gae_lambda: float = bounded(0.95, least=0, most=1)
    """Lambda of generalised advantage estimation (arXiv 1506.02438)."""
    gae_lambda_value: float | None = bounded(None, least=0, most=1)
    """Lambda of the returns that the value network learns (decoupled GAE, arXiv 2503.01491, where it is 1); null: gae_lambda."""
    length_adaptive_lambda: float = bounded(0.0, least=0, most=1e6)
    """Alpha of a lambda for each response of l tokens, 1 - 1 / (alpha l) and at least 0, in place of gae_lambda in the advantages
    (arXiv 2504.05118, where it is 0.05, for thousands of tokens); 0: gae_lambda for all."""
    whiten_rewards: bool = False
    """Scale the per-token rewards of a batch to variance 1 (their mean stays)."""
    whiten_advantages: bool = True
    """Scale the advantages of a batch to mean 0 and variance 1."""
    missing_eos: str = "subtract"
    """A response cut off before EOS: subtract (its score less missing_eos_penalty), replace (the score becomes
    -missing_eos_penalty) or keep."""
    missing_eos_penalty: float = bounded(1.0, least=0, most=1e4)
    """See missing_eos; in reward units."""

    @property
    def horizon(self) -> float:
        """kl_horizon, or where it is null ten batches."""
        return 10.0 * self.batch_size if self.kl_horizon is None else self.kl_horizon

    @property
    def lambda_of_returns(self) -> float:
        """gae_lambda_value, or where it is null gae_lambda."""
        return self.gae_lambda if self.gae_lambda_value is None else self.gae_lambda_value

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self)


def check(config: PPOConfig) -> None:
    """Raises UserError for values that cannot work."""
    if config.batch_size % config.minibatches:
        raise UserError(
            f"algo.batch_size={config.batch_size} is not a multiple of algo.minibatches={config.minibatches}: every "
            "minibatch must have the same size."
        )
    if config.missing_eos not in MISSING_EOS:
        raise unknown_name("algo.missing_eos", config.missing_eos, MISSING_EOS)
    if config.value_init not in VALUE_INIT:
        raise unknown_name("algo.value_init", config.value_init, VALUE_INIT)
    for name, known in (("kl_in", KL_IN), ("kl_estimator", KL_ESTIMATORS)):
        if getattr(config, name) not in known:
            raise unknown_name(f"algo.{name}", getattr(config, name), known)
    if config.kl_in == "loss" and config.whiten_rewards:
        raise UserError(
            "algo.whiten_rewards=true scales the scores by the batch, and the KL in the loss would not follow: choose "
            "algo.kl_in=reward, or algo.whiten_rewards=false."
        )
    if config.updates:
        check_warmup(config, config.updates)
    if config.kl_target and not config.kl_coef:
        raise UserError(f"algo.kl_target={config.kl_target} needs algo.kl_coef above 0: it multiplies kl_coef.")


def check_warmup(config: PPOConfig, updates: int) -> None:
    """Raises UserError where the policy would never be trained."""
    if config.value_warmup and config.value_warmup >= updates:
        raise UserError(
            f"algo.value_warmup={config.value_warmup} leaves none of {updates} updates for the policy: lower it, or give more "
            "updates (algo.updates, or budget.samples where it ends the run)."
        )
