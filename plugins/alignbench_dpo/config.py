"""The configs of direct preference optimisation and its family; the only place where their defaults stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alignbench import (
    MISSING_EOS,
    ImplicitReward,
    LabelConfig,
    PreferenceConfig,
    RolloutConfig,
    UserError,
    bounded,
    unknown_name,
)

LOSSES = ("sigmoid", "hinge", "ipo", "robust")
LABELS = ("hard", "soft")
ANCHORS = ("zero", "down")


@dataclass
class PairwiseConfig(PreferenceConfig):
    """What the algorithms that learn from recorded pairs have in common: their schedule."""

    updates: int = 0
    """As in OptimizerConfig; a batch is `batch_size` pairs."""
    passes: float = 1.0
    """As in OptimizerConfig."""
    batch_size: int = 32
    """Pairs per update."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: memory only."""


@dataclass
class SoftConfig(PairwiseConfig):
    """What algorithms have in common whose label may be a probability."""

    soft_labels: bool = False
    """Learn from the annotator's own P(chosen preferred) in place of the hard label."""

    @property
    def needs_probabilities(self) -> str:
        return "algo.soft_labels=true" if self.soft_labels else ""


@dataclass
class DPOConfig(PairwiseConfig):
    """Direct preference optimisation: the policy is its own reward model (arXiv 2305.18290)."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in reward units per nat: the implicit reward is beta (log pi - log pi_ref) of a response."""
    loss: str = "sigmoid"
    """sigmoid (Bradley-Terry), hinge (SLiC on log-ratios, arXiv 2305.10425, 2309.06657), ipo (arXiv 2310.12036; beta is
    its tau) or robust (sigmoid, unbiased under labels flipped at a known rate, arXiv 2403.00409)."""
    label_smoothing: float = bounded(0.0, least=0, below=0.5)
    """Share of labels taken to be flipped, from 0 to below 0.5: for sigmoid the conservative loss (it learns from labels of
    1 - label_smoothing), for robust the flip rate that it corrects."""
    soft_labels: bool = False
    """Learn from the annotator's own P(chosen preferred) in place of the hard label; for sigmoid and ipo."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_loss(self.loss, self.label_smoothing, soft="algo.soft_labels=true" if self.soft_labels else "")

    @property
    def needs_probabilities(self) -> str:
        return "algo.soft_labels=true" if self.soft_labels else ""

    def implicit_reward(self) -> ImplicitReward:
        """A hinge asks for order alone, and ipo's margin is no logit."""
        return ImplicitReward(beta=self.beta if self.loss in ("sigmoid", "robust") else None)


@dataclass
class IPOConfig(SoftConfig):
    """Identity preference optimisation: a squared loss towards a bounded margin (arXiv 2310.12036)."""

    tau: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in units of win probability per nat: the margin of log-ratios aimed at is 1 / (2 tau) nats.
    The same loss as algo=dpo algo.loss=ipo with beta = tau."""


@dataclass
class ORPOConfig(PairwiseConfig):
    """Odds ratio preference optimisation: imitation of the chosen and an odds-ratio loss, no reference (arXiv 2403.07691)."""

    uses_reference: ClassVar[bool] = False
    kl_price: ClassVar[str | None] = ""

    orpo_lambda: float = bounded(0.1, least=0, most=1e4)
    """Lambda: weight of the odds-ratio loss against the mean negative log-likelihood of a chosen token, no unit."""


@dataclass
class SimPOConfig(PairwiseConfig):
    """Simple preference optimisation: the reward is the mean log-probability, no reference (arXiv 2405.14734)."""

    uses_reference: ClassVar[bool] = False
    kl_price: ClassVar[str | None] = ""

    beta: float = bounded(2.0, least=1e-6, most=1e4)
    """Scale of the reward beta / |y| log pi(y|x): reward units per (nat per token)."""
    gamma: float = bounded(1.0, least=0, most=1e4)
    """Target margin between the rewards of chosen and rejected, in reward units; the paper tunes gamma / beta."""
    alpha: float = bounded(0.0, least=0, most=1e4)
    """Weight of the negative log-likelihood of a chosen token beside the loss, no unit: above 0 it is CPO-SimPO."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(per_token=True, beta=self.beta)


@dataclass
class CPOConfig(PairwiseConfig):
    """Contrastive preference optimisation: DPO's loss without a reference, and imitation of the chosen (arXiv 2401.08417)."""

    uses_reference: ClassVar[bool] = False
    kl_price: ClassVar[str | None] = ""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Scale of the reward beta log pi(y|x): reward units per nat. Nothing holds the policy at a reference: it is no price of KL."""
    alpha: float = bounded(1.0, least=0, most=1e4)
    """Weight of the negative log-likelihood of a chosen token, no unit; 0: none."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta, reference=False)


@dataclass
class APOConfig(PairwiseConfig):
    """Anchored preference optimisation: says where each side of a pair should go (arXiv 2408.06266)."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Slope of the implicit reward beta (log pi - log pi_ref), in reward units per nat: the larger, the sooner it saturates."""
    anchor: str = "zero"
    """zero: the chosen response becomes more likely and the rejected one less, for pairs better than the model; down: both less, the rejected
    one more so, for a model better than the pairs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anchor not in ANCHORS:
            raise unknown_name("algo.anchor", self.anchor, ANCHORS)


@dataclass
class EXOConfig(SoftConfig):
    """Efficient exact optimisation: the reverse KL between policy and reward on a pair (EXO-pref, arXiv 2402.00856)."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in reward units per nat, as in DPO; the paper's beta_pi where its beta_r is 1."""
    label_smoothing: float = bounded(1e-3, above=0, below=0.5)
    """Epsilon: a hard label is a probability of 1 - epsilon, for that of 1 is infinitely far. Soft labels are taken as they are."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta)


@dataclass
class SPPOConfig(SoftConfig):
    """Self-play preference optimisation on recorded pairs: log-ratios regressed on win rates (arXiv 2405.00675)."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """1 / eta of the paper: price of one nat of KL, in units of win probability per nat. A response that always wins aims at a log-ratio
    of 1 / (2 beta) nats."""


@dataclass
class LengthNormalisedDPOConfig(SoftConfig):
    """Length-normalised DPO: the implicit reward is the log-ratio of a token, not of a response (arXiv 2411.15124)."""

    kl_price: ClassVar[str | None] = ""

    beta: float = bounded(5.0, least=1e-6, most=1e4)
    """Scale of the reward beta / |y| log pi / pi_ref: reward units per (nat per token), no price of a nat."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(per_token=True, beta=self.beta, reference=True)


@dataclass
class WPOConfig(SoftConfig):
    """Weighted preference optimisation: DPO's loss, most on pairs that the policy would give itself (arXiv 2406.11827)."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in reward units per nat, as in DPO."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta)


@dataclass
class UnpairedConfig(LabelConfig):
    """What the algorithms that learn from single responses have in common: their schedule."""

    updates: int = 0
    """As in OptimizerConfig."""
    passes: float = 1.0
    """As in OptimizerConfig."""


@dataclass
class BCOConfig(UnpairedConfig):
    """Binary classifier optimisation: tells good responses from bad ones by the implicit reward (arXiv 2404.04656)."""

    batch_size: int = 32
    """Pairs per update; of labels without pairs twice as many responses."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: memory only."""
    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Scale of the implicit reward beta (log pi - log pi_ref), in reward units per nat."""

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta)


@dataclass
class KTOConfig(UnpairedConfig):
    """Kahneman-Tversky optimisation: each response is desirable or not, pairs are taken apart (arXiv 2402.01306)."""

    batch_size: int = bounded(32, least=2, most=1e6)
    """Pairs per update, 2 or more: the reference point is measured on responses to the other prompts of a batch. Of labels without
    pairs twice as many responses."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: memory only."""
    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Slope of the value function, in reward units per nat of log pi - log pi_ref: the larger, the sooner it saturates."""
    desirable_weight: float = bounded(1.0, least=0, most=1e4)
    """lambda_D: weight of the good responses, no unit."""
    undesirable_weight: float = bounded(1.0, least=0, most=1e4)
    """lambda_U: weight of the bad responses, no unit. Where there are n_D good and n_U bad ones, the paper chooses both so that
    lambda_D n_D / (lambda_U n_U) lies between 1 and 4/3 (arXiv 2402.01306, section 4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.desirable_weight and not self.undesirable_weight:
            raise UserError("algo.desirable_weight and algo.undesirable_weight are both 0: nothing would be learnt.")

    def implicit_reward(self) -> ImplicitReward:
        return ImplicitReward(beta=self.beta)


@dataclass
class OnlineDPOConfig(RolloutConfig):
    """DPO on the policy's own samples, paired by their scores (OAIF, arXiv 2402.04792)."""

    updates: int = 50
    """As in OptimizerConfig."""
    batch_size: int = 64
    """Responses sampled per update: batch_size / samples_per_prompt prompts."""
    micro_batch_size: int = 32
    """Pairs per backward pass, twice as many responses: memory only."""
    learning_rate: float = 3e-5
    """As in OptimizerConfig."""
    samples_per_prompt: int = bounded(2, least=2, most=1e4)
    """Responses sampled for each prompt, 2 or more; the best and the worst by score form its pair."""

    beta: float = bounded(0.1, least=1e-6, most=1e4)
    """Price of one nat of KL, in reward units per nat, as in DPO."""
    loss: str = "sigmoid"
    """sigmoid, hinge, ipo or robust, as in DPO."""
    label_smoothing: float = bounded(0.0, least=0, below=0.5)
    """As in DPO."""
    labels: str = "hard"
    """hard (the best is preferred for certain, as in the paper) or soft: preferred with probability
    sigmoid(score of the best - score of the worst), Bradley-Terry on the scores."""
    missing_eos: str = "subtract"
    """A response cut off before EOS: subtract (its score less missing_eos_penalty), replace (the score becomes
    -missing_eos_penalty) or keep."""
    missing_eos_penalty: float = bounded(1.0, least=0, most=1e4)
    """See missing_eos; in reward units."""

    @property
    def rows_with_gradients(self) -> int:
        """Both responses of each pair."""
        return 2 * min(self.micro_batch_size, self.batch_size // self.samples_per_prompt)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels not in LABELS:
            raise unknown_name("algo.labels", self.labels, LABELS)
        check_loss(self.loss, self.label_smoothing, soft="algo.labels=soft" if self.labels == "soft" else "")
        if self.missing_eos not in MISSING_EOS:
            raise unknown_name("algo.missing_eos", self.missing_eos, MISSING_EOS)

    def implicit_reward(self) -> ImplicitReward:
        """As DPO's."""
        return ImplicitReward(beta=self.beta if self.loss in ("sigmoid", "robust") else None)


def check_loss(loss: str, label_smoothing: float, *, soft: str) -> None:
    """Raises UserError for settings that do not go together; `soft` is the setting that asks for soft labels, or empty."""
    if loss not in LOSSES:
        raise unknown_name("algo.loss", loss, LOSSES)
    if label_smoothing and loss not in ("sigmoid", "robust"):
        raise UserError(
            f"algo.label_smoothing does nothing to algo.loss={loss}: use sigmoid or robust, or set it to 0."
        )
    if soft and loss not in ("sigmoid", "ipo"):
        raise UserError(f"{soft} is not defined for algo.loss={loss}: use sigmoid or ipo, or hard labels.")
    if soft and label_smoothing:
        raise UserError(f"{soft} already says how sure a label is: set algo.label_smoothing=0, or use hard labels.")
