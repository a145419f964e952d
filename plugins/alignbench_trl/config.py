"""The configs of TRL's trainers; the only place where their defaults stand. docs/trl.md says which argument of TRL each option is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from alignbench import (
    ImplicitReward,
    LabelConfig,
    OptimizerConfig,
    PreferenceConfig,
    RolloutConfig,
    UserError,
    bounded,
    unknown_name,
)
from alignbench_trl.environment import python_of

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Schedules by the names that transformers has for them."""
ONLINE_LOSSES = ("sigmoid", "ipo")
GRPO_LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo")
LEAST_WHITENED = 8
SCALES = ("group", "batch", "none")
MICRO = {
    "micro_batches_change_memory_alone": "TRL takes the mean of a micro-batch's own tokens or pairs, and then that of means"
}


@dataclass
class TRLConfig(OptimizerConfig):
    """What all of TRL's trainers have in common: transformers makes their optimizer and schedule."""

    adam_eps: float = bounded(1e-8, least=1e-12, most=1e4)
    """As in OptimizerConfig; the default is that of transformers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer != "adamw" or self.optimizer_options:
            raise UserError("algo.optimizer: TRL's own AdamW trains here: leave optimizer and optimizer_options out.")
        if self.lr_schedule not in SCHEDULES:
            raise unknown_name("algo.lr_schedule", self.lr_schedule, SCHEDULES)
        if self.lr_schedule_options:
            raise UserError("algo.lr_schedule_options: the schedules of TRL's trainers have none here: leave it out.")


@dataclass
class PairsConfig(TRLConfig, PreferenceConfig):
    """What those that learn from recorded pairs have in common. TRL asks its reference itself, at every step."""

    uses_reference: ClassVar[bool] = False

    updates: int = 0
    """As in OptimizerConfig; a batch is `batch_size` pairs."""
    passes: float = 1.0
    """As in OptimizerConfig."""
    batch_size: int = 32
    """Pairs per update."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: the largest divisor of batch_size that is not above it is taken."""


@dataclass
class DPOConfig(PairsConfig):
    """TRL's DPOTrainer (arXiv 2305.18290), of hard labels."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in reward units per nat."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta)


@dataclass
class ORPOConfig(PairsConfig):
    """TRL's ORPOTrainer (arXiv 2403.07691), from trl.experimental."""

    kl_price: ClassVar[str | None] = ""
    declines: ClassVar[Mapping[str, str]] = MICRO

    orpo_lambda: float = bounded(0.1, least=0, most=1e4)
    """Weight of the odds-ratio loss (TRL's beta), no unit."""


@dataclass
class CPOConfig(PairsConfig):
    """TRL's CPOTrainer (arXiv 2401.08417), from trl.experimental."""

    kl_price: ClassVar[str | None] = ""
    declines: ClassVar[Mapping[str, str]] = MICRO

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Scale of the reward beta log pi(y|x): reward units per nat. It is no price of KL."""
    alpha: float = bounded(1.0, least=0, most=1e4)
    """Weight of the negative log-likelihood of a chosen token (TRL's cpo_alpha), no unit; 0: none."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta, reference=False)


@dataclass
class KTOConfig(TRLConfig, LabelConfig):
    """TRL's KTOTrainer (arXiv 2402.01306)."""

    uses_reference: ClassVar[bool] = False
    declines: ClassVar[Mapping[str, str]] = {
        "micro_batches_change_memory_alone": "TRL measures the reference point of a micro-batch on that micro-batch"
    }

    updates: int = 0
    """As in OptimizerConfig."""
    passes: float = 1.0
    """As in OptimizerConfig."""
    batch_size: int = bounded(32, least=2, most=1e6)
    """Pairs per update, 2 or more; of labels without pairs twice as many responses."""
    micro_batch_size: int = 32
    """Pairs per backward pass, as for DPO. TRL's reference point is measured on a micro-batch."""
    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Slope of the value function, in reward units per nat of log pi - log pi_ref."""
    desirable_weight: float = bounded(1.0, least=0, most=1e4)
    """Weight of the good responses, no unit."""
    undesirable_weight: float = bounded(1.0, least=0, most=1e4)
    """Weight of the bad responses, no unit."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta)


@dataclass
class SampledConfig(TRLConfig, RolloutConfig):
    """What those that learn from scored samples have in common. Scores are taken as they are, of a response that was cut off too."""

    updates: int = 50
    """As in OptimizerConfig."""
    learning_rate: float = 3e-5
    """As in OptimizerConfig."""


@dataclass
class StepsConfig(SampledConfig):
    """What GRPO, RLOO and PPO have in common: several clipped steps on each batch, and a price of KL."""

    micro_batch_size: int = 64
    """Responses per backward pass: the largest divisor of a step's responses that is not above it is taken."""
    kl_coef: float = bounded(0.1, least=0, most=1e4)
    """Weight of the KL penalty (TRL's beta, PPO's kl_coef), reward units per nat."""
    epochs: int = bounded(1, least=1, most=1000)
    """Passes over each batch of rollouts (TRL's num_iterations, PPO's num_ppo_epochs)."""
    minibatches: int = bounded(1, least=1)
    """Optimizer steps per epoch; batch_size must be a multiple of it."""
    clip_ratio: float = bounded(0.2, above=0, most=1e6)
    """Clipping of the probability ratio (TRL's epsilon, PPO's cliprange)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.minibatches:
            raise UserError(
                f"algo.batch_size={self.batch_size} is not a multiple of algo.minibatches={self.minibatches}: every "
                "minibatch must have the same size."
            )


@dataclass
class GroupConfig(StepsConfig):
    """What GRPO and RLOO have in common."""

    samples_per_prompt: int = bounded(4, least=2, most=1e4)
    """Responses in a group (TRL's num_generations); batch_size must be a multiple of it."""


@dataclass
class GRPOConfig(GroupConfig):
    """TRL's GRPOTrainer (arXiv 2402.03300), its KL in the loss of each token."""

    samples_per_prompt: int = 8
    """As in GroupConfig."""
    loss_type: str = "dapo"
    """How losses of tokens are summed: dapo (TRL's default: the mean over all tokens of a batch), bnpo (of a micro-batch), grpo (the mean
    over each response, then over responses) or dr_grpo (the sum, by the longest response that can be)."""
    scale_rewards: str = "group"
    """What advantages are divided by: the standard deviation of their group, of the batch, or none."""
    unbiased_kl: bool = True
    """Multiply the KL estimate by the probability ratio (TRL's use_bias_correction_kl), so that its gradient is that of KL(pi || pi_ref) at a
    token, and not of KL(pi_ref || pi)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_type not in GRPO_LOSSES:
            raise unknown_name("algo.loss_type", self.loss_type, GRPO_LOSSES)
        if self.scale_rewards not in SCALES:
            raise unknown_name("algo.scale_rewards", self.scale_rewards, SCALES)


@dataclass
class RLOOConfig(GroupConfig):
    """TRL's RLOOTrainer (arXiv 2402.14740), its KL in the reward of the response."""


@dataclass
class OnlineDPOConfig(SampledConfig):
    """TRL's OnlineDPOTrainer (arXiv 2402.04792), from trl.experimental: the better of two samples is preferred for certain."""

    declines: ClassVar[Mapping[str, str]] = {
        "micro_batches_change_memory_alone": "TRL takes no notice of how many micro-batches a step has: its gradient is their sum"
    }

    batch_size: int = 64
    """Responses per update, two to a prompt: half as many pairs."""
    samples_per_prompt: int = bounded(2, least=2, most=2)
    """Two, which TRL makes a pair."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: the largest divisor of an update's pairs that is not above it is taken."""
    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in reward units per nat, as in DPO."""
    loss: str = "sigmoid"
    """sigmoid or ipo (TRL's loss_type)."""

    @property
    def rows_with_gradients(self) -> int:
        """Both responses of each pair."""
        return min(2 * self.micro_batch_size, self.batch_size)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in ONLINE_LOSSES:
            raise unknown_name("algo.loss", self.loss, ONLINE_LOSSES)

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta if self.loss == "sigmoid" else None)


@dataclass
class PPOConfig(StepsConfig):
    """PPOTrainer of TRL 1.12 (arXiv 1909.08593, 2203.02155), the last there is, in an environment of its own."""

    inert: ClassVar[Mapping[str, str]] = {"environment": "it says where TRL is"}
    declines: ClassVar[Mapping[str, str]] = MICRO

    environment: str = "~/.cache/alignbench/trl-1.12"
    """Folder of a virtual environment with TRL 1.12; the error that says that it is missing says how to make it."""
    epochs: int = 4
    """Passes over each batch of rollouts (TRL's num_ppo_epochs)."""
    max_grad_norm: float = 0.0
    """0: TRL's PPO clips no gradient."""
    clip_value: float = bounded(0.2, least=0)
    """Clipping of the value update around the old value (TRL's cliprange_value), in reward units; 0: none."""
    value_coef: float = bounded(0.1, least=0, most=1e4)
    """Weight of the value loss (TRL's vf_coef), no unit. AdamW takes hardly any notice of a factor on the loss of a network of its own."""
    gamma: float = bounded(1.0, above=0, most=1)
    """Discount, as in PPO."""
    gae_lambda: float = bounded(0.95, least=0, most=1)
    """Lambda of generalised advantage estimation (TRL's lam)."""
    whiten_rewards: bool = False
    """Scale the per-token rewards of a batch to variance 1 (their mean stays)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_grad_norm:
            raise UserError(f"algo.max_grad_norm={self.max_grad_norm:g}: TRL's PPO clips no gradient: leave it at 0.")
        if self.whiten_rewards and self.batch_size // self.minibatches < LEAST_WHITENED:
            raise UserError(
                f"algo.whiten_rewards: TRL's PPO wants minibatches of {LEAST_WHITENED} responses or more, and algo.batch_size={self.batch_size} "
                f"with algo.minibatches={self.minibatches} gives {self.batch_size // self.minibatches}."
            )
        if self.minibatches > 1 and self.micro_batch_size * self.minibatches < self.batch_size:
            raise UserError(
                f"algo.micro_batch_size={self.micro_batch_size} divides the minibatches of algo.minibatches={self.minibatches}, and TRL's PPO "
                f"would then make one step an epoch: give {-(-self.batch_size // self.minibatches)} or more, or algo.minibatches=1."
            )

    def ready(self) -> None:
        super().ready()
        python_of(self.environment)
