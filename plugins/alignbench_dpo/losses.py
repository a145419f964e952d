"""The losses, as pure functions of log-probabilities in nats; each gives one number per pair (KTO: per response), [B].

y_w is the chosen and y_l the rejected response. `margin` is h(x, y_w, y_l) = log pi(y_w|x) / pi_ref(y_w|x) -
log pi(y_l|x) / pi_ref(y_l|x), of log-probabilities summed over tokens; s is the logistic function.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

CERTAIN = 1e-6
"""How near to 0 and 1 a probability may come whose logarithm is taken."""


def sigmoid_loss(margin: Tensor, beta: float, probability: Tensor | float = 1.0) -> Tensor:
    """-p log s(beta h) - (1 - p) log s(-beta h), p the probability that y_w is preferred.

    p = 1: DPO (arXiv 2305.18290, equation 7). p = 1 - epsilon: conservative DPO (Mitchell 2023)."""
    return -probability * logsigmoid(beta * margin) - (1 - probability) * logsigmoid(-beta * margin)


def robust_loss(margin: Tensor, beta: float, flip_rate: float) -> Tensor:
    """[-(1 - e) log s(beta h) + e log s(-beta h)] / (1 - 2 e) (arXiv 2403.00409): its mean over labels
    flipped at rate e is the DPO loss of the true labels. That is the loss of a label (1 - e) / (1 - 2 e), beyond 1."""
    return sigmoid_loss(margin, beta, (1 - flip_rate) / (1 - 2 * flip_rate))


def hinge_loss(margin: Tensor, beta: float) -> Tensor:
    """max(0, 1 - beta h): SLiC's rank calibration (arXiv 2305.10425) on log-ratios (arXiv 2309.06657), delta = 1 / beta."""
    return torch.relu(1 - beta * margin)


def ipo_loss(margin: Tensor, tau: float, probability: Tensor | float = 1.0) -> Tensor:
    """(h - (2 p - 1) / (2 tau))^2; p = 1: arXiv 2310.12036, equation 17. With p it is, up to a constant, the mean of
    that loss over labels drawn with p."""
    return (margin - (2 * probability - 1) / (2 * tau)) ** 2


def dpo_loss(
    margin: Tensor, beta: float, *, loss: str, label_smoothing: float = 0.0, probability: Tensor | None = None
) -> Tensor:
    """The loss that a config names; `probability` where labels are soft."""
    if loss == "hinge":
        return hinge_loss(margin, beta)
    if loss == "robust":
        return robust_loss(margin, beta, label_smoothing)
    label = 1 - label_smoothing if probability is None else probability
    return ipo_loss(margin, beta, label) if loss == "ipo" else sigmoid_loss(margin, beta, label)


def log_odds(mean_logprob: Tensor) -> Tensor:
    """log P / (1 - P) of P = exp(mean log-probability of a token) (arXiv 2403.07691, equation 4).

    Held one float32 step below certainty, where the odds would be infinite."""
    below = mean_logprob.clamp(max=-torch.finfo(torch.float32).eps)
    return below - torch.log(-torch.expm1(below))


def orpo_loss(chosen_mean: Tensor, rejected_mean: Tensor, orpo_lambda: float) -> Tensor:
    """-mean log pi(y_w|x) - lambda log s(log odds(y_w|x) / odds(y_l|x)) (arXiv 2403.07691, equations 6 and 7)."""
    return -chosen_mean - orpo_lambda * logsigmoid(log_odds(chosen_mean) - log_odds(rejected_mean))


def simpo_loss(chosen_mean: Tensor, rejected_mean: Tensor, beta: float, gamma: float) -> Tensor:
    """-log s(beta / |y_w| log pi(y_w|x) - beta / |y_l| log pi(y_l|x) - gamma) (arXiv 2405.14734, equation 6)."""
    return -logsigmoid(beta * (chosen_mean - rejected_mean) - gamma)


def kto_loss(log_ratio: Tensor, good: Tensor, z0: Tensor, beta: float, desirable: float, undesirable: float) -> Tensor:
    """lambda_y - v(x, y) of each response (arXiv 2402.01306): lambda_D (1 - s(beta (r - z0))) for the good and
    lambda_U (1 - s(beta (z0 - r))) for the bad, r = log pi(y|x) / pi_ref(y|x)."""
    lost = torch.sigmoid(beta * torch.where(good, z0 - log_ratio, log_ratio - z0))
    return torch.where(good, desirable, undesirable) * lost


def imitation_loss(chosen_mean: Tensor) -> Tensor:
    """-log pi(y_w|x) / |y_w|: what CPO (arXiv 2401.08417) and CPO-SimPO add to their losses."""
    return -chosen_mean


def apo_loss(chosen_ratio: Tensor, rejected_ratio: Tensor, beta: float, anchor: str) -> Tensor:
    """arXiv 2408.06266, up to a constant 1: zero, equation 7, is -s(beta r_w) + s(beta r_l); down, equation 8, is
    s(beta r_w) - s(beta (r_w - r_l)); r = log pi / pi_ref."""
    if anchor == "zero":
        return torch.sigmoid(-beta * chosen_ratio) + torch.sigmoid(beta * rejected_ratio)
    return torch.sigmoid(beta * chosen_ratio) + torch.sigmoid(-beta * (chosen_ratio - rejected_ratio))


def exo_loss(margin: Tensor, beta: float, probability: Tensor | float) -> Tensor:
    """KL(q || p) of two outcomes, q = s(beta h) and p the probability that y_w is preferred (arXiv 2402.00856, equation 16)."""
    held = torch.as_tensor(probability, dtype=margin.dtype, device=margin.device).clamp(CERTAIN, 1 - CERTAIN)
    log_q, log_rest = logsigmoid(beta * margin), logsigmoid(-beta * margin)
    return log_q.exp() * (log_q - held.log()) + log_rest.exp() * (log_rest - torch.log1p(-held))


def sppo_loss(chosen_ratio: Tensor, rejected_ratio: Tensor, beta: float, probability: Tensor | float = 1.0) -> Tensor:
    """(r_w - (p - 1/2) / beta)^2 + (r_l + (p - 1/2) / beta)^2: arXiv 2405.00675, equation 4.7 on pairs, beta = 1 / eta."""
    aim = (probability - 0.5) / beta
    return (chosen_ratio - aim) ** 2 + (rejected_ratio + aim) ** 2


def on_policy_weight(chosen_mean: Tensor, rejected_mean: Tensor) -> Tensor:
    """w(x, y_w) w(x, y_l), w = exp(log pi(y|x) / |y|) without gradient (arXiv 2406.11827, equation 2)."""
    return (chosen_mean + rejected_mean).detach().exp()


def bco_loss(log_ratio: Tensor, good: Tensor, shift: Tensor, beta: float) -> Tensor:
    """-log s(beta r - delta) of the good and -log s(-(beta r - delta)) of the bad responses (arXiv 2404.04656); delta: `shift`."""
    reward = beta * log_ratio - shift
    return -logsigmoid(torch.where(good, reward, -reward))


def tdpo_margin(margin: Tensor, chosen_kl: Tensor, rejected_kl: Tensor, share: float, *, one_sided: bool) -> Tensor:
    """h - share (D(y_l) - D(y_w)), D the sum of KL(pi_ref || pi) at a response's tokens (arXiv 2404.11999). `one_sided`: D(y_w) gets
    no gradient, as in TDPO2."""
    return margin - share * (rejected_kl - (chosen_kl.detach() if one_sided else chosen_kl))
