"""Mathematics that several algorithms share, each piece once. Part of the public door; imports torch.

Masks are [B, R] bool or {0, 1}, True at response tokens. Log-probabilities and KL are in nats.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from alignbench import distributed
from alignbench.contracts import Policy
from alignbench.contracts import preferred as preferred
from alignbench.deprecation import moved
from alignbench.distributed import anywhere as anywhere
from alignbench.distributed import idles as idles
from alignbench.distributed import keep_step as keep_step
from alignbench.distributed import passes as passes
from alignbench.errors import NonFiniteError, UserError
from alignbench.optimization.importance import correction as correction
from alignbench.optimizer_config import OptimizerConfig
from alignbench.records import POLICY, ExactProblem, Sequences
from alignbench.records.rankings import ranking_to_pairs as ranking_to_pairs
from alignbench.records.rankings import ranks_of as ranks_of
from alignbench.selection import select
from alignbench.tokens.logprobs import most_logits as most_logits
from alignbench.tokens.logprobs import token_logprobs as token_logprobs
from alignbench.tokens.logprobs import token_logprobs_and_kl as token_logprobs_and_kl
from alignbench.tokens.sampling import draw as draw

T = TypeVar("T")
_LOWER = "Lower the learning rate."
_SAME_REWARD = 1e-9  # of its size


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum over the masked elements. `where`, not a product: what lies outside the mask may be NaN or infinite."""
    kept = torch.where(mask.bool(), values, torch.zeros_like(values))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean over the masked elements; 0 where the mask is empty."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(values, mask, dim) / count.clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Scales to variance 1 over the mask (biased variance), and to mean 0 unless `shift_mean` is False; 0 outside."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    white = (values - mean) * torch.rsqrt(variance + eps)
    if not shift_mean:
        white = white + mean
    return torch.where(mask.bool(), white, torch.zeros_like(white))


def summed_logprobs(policy: Policy, sequences: Sequences, *, role: str = POLICY, temperature: float = 1.0) -> Tensor:
    """[B]: log-probabilities of whole responses, nats."""
    scores = policy.logprobs(sequences, role=role, temperature=temperature).logprobs
    return masked_sum(scores, sequences.response_mask, dim=1)


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log pi - log pi_ref of the sampled token: unbiased, may be negative (Schulman 2020, "Approximating KL divergence")."""
    return logprobs - ref_logprobs


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio: biased as a value, low variance."""
    return 0.5 * (logprobs - ref_logprobs) ** 2


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1: unbiased as a value and never negative; its gradient as a loss is not that of the KL."""
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """KL in the unit used everywhere: nats per response, [B], the sum over response tokens of log pi - log pi_ref."""
    return masked_sum(kl_k1(logprobs, ref_logprobs), mask, dim=1)


@dataclass(frozen=True)
class ClippedLoss:
    """A loss summed over its elements, and over how many of them the clipping took hold."""

    total: Tensor
    clipped: Tensor


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_ratio: float,
    clip_ratio_high: float | None = None,
) -> ClippedLoss:
    """-min(rho A, clip(rho, 1 - eps, 1 + eps) A), summed over the mask (arXiv 1707.06347, equation 7). `clip_ratio_high`: the upper eps,
    where it is another (arXiv 2503.14476, equation 10).

    [B, R] with a ratio per token, or [B, 1] with one per response. While nothing has moved its gradient is that of
    -A log pi."""
    ratio = torch.exp(logprobs - old_logprobs)
    high = clip_ratio if clip_ratio_high is None else clip_ratio_high
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_ratio, 1 + high)
    return ClippedLoss(masked_sum(torch.maximum(plain, clipped), mask), ((clipped > plain) & mask).sum())


def shape_scores(scores: Tensor, finished: Tensor, rule: str, penalty: float) -> Tensor:
    """The missing-EOS rule: scores of responses that were cut off are lowered, replaced or kept (see MISSING_EOS)."""
    if rule == "subtract":
        return torch.where(finished, scores, scores - penalty)
    if rule == "replace":
        return torch.where(finished, scores, torch.full_like(scores, -penalty))
    return scores


def exact_scores(problem: ExactProblem, rule: str, penalty: float) -> Tensor | None:
    """[X, Y]: the rewards of an exact problem after the missing-EOS rule. Completions shorter than the longest ended by
    themselves, so that their last token is EOS; None where no completion is shorter and the rule needs to know."""
    if rule == "keep" or (rule == "subtract" and penalty == 0):
        return problem.rewards
    longest = max(len(completion) for completion in problem.completions)
    ends = {completion[-1] for completion in problem.completions if len(completion) < longest}
    if len(ends) != 1:
        return None
    finished = torch.tensor([completion[-1] in ends for completion in problem.completions])
    return shape_scores(problem.rewards, finished.to(problem.rewards.device), rule, penalty)


def kl_optimum(reference: Tensor, rewards: Tensor, kl_coef: float) -> Tensor:
    """pi_ref exp(r / kl_coef) / Z, [X, Y]: what maximises E[r] - kl_coef KL(pi || pi_ref) over all distributions."""
    return torch.softmax(reference.log() + rewards / kl_coef, dim=1)


def total_variation(left: Tensor, right: Tensor) -> Tensor:
    """Half the L1 distance between distributions that are written down, [X, Y] -> [X]."""
    return 0.5 * (left - right).abs().sum(1)


def kl_divergence(left: Tensor, right: Tensor) -> Tensor:
    """KL(left || right) in nats, [X, Y] -> [X]; what `left` never gives counts nothing."""
    return torch.where(left > 0, left * (left.log() - right.log()), torch.zeros_like(left)).sum(1)


def best_of_n(reference: Tensor, rewards: Tensor, n: int) -> Tensor:
    """[X, Y]: P(y) = pi_ref(y) / p(level) * (F(r)^n - F(r-)^n), float64 (Beirami et al., arXiv 2401.01879).

    p(level) is the reference's mass on the responses of one reward, F and F- the mass at most and below it: the best
    level of n draws has F^n - F-^n, and within a level the first of equals is any of them in proportion to pi_ref.
    Rewards closer than 1e-9 of their size are equal: sums in another order must not break a tie."""
    ordered, order = rewards.double().sort(dim=1)
    gap = ordered.diff(dim=1) > _SAME_REWARD * ordered[:, 1:].abs().clamp(min=1.0)
    level = torch.nn.functional.pad(gap.long().cumsum(1), (1, 0))
    prior = reference.double().gather(1, order)
    mass = torch.zeros_like(prior).scatter_add_(1, level, prior)  # column l: level l; empty ones have 0
    reached = mass.cumsum(1)
    won = reached**n - (reached - mass).clamp(min=0.0) ** n
    share = torch.where(mass > 0, won / mass, 0.0).gather(1, level) * prior
    return torch.zeros_like(share).scatter(1, order, share)


def best_of_n_kl_bound(n: int) -> float:
    """log n - (n - 1) / n, nats per response: KL(best of n || the sampled model) is at most this, and equals it where no
    response has weight or ties (Beirami et al., arXiv 2401.01879)."""
    return math.log(n) - (n - 1) / n


def learning_rate_at(
    update: int, *, updates: int, schedule: str, warmup: int, options: Mapping[str, Any] | None = None
) -> float:
    """The factor on the learning rate at `update` (from 0): linear warm-up from 0, then the schedule of that name with its options."""
    if update < warmup:
        return (update + 1) / (warmup + 1)
    progress = min((update - warmup) / max(updates - warmup, 1), 1.0)
    return float(select("schedule", schedule, options or {}, where="lr_schedule_options").build(progress=progress))


def require_finite(name: str, value: Tensor, *, hint: str = "") -> Tensor:
    """Returns `value`, or raises NonFiniteError that counts and names what is not finite."""
    if not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).sum())
        raise NonFiniteError(f"{name} is NaN or infinite ({bad} of {value.numel()} values). {hint}".strip())
    return value


@contextlib.contextmanager
def within_memory(part: str, *ways: str) -> Iterator[None]:
    """Raises UserError where memory runs out: one line that says in which part, and which settings take less (`ways`)."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's own error is a RuntimeError, on a CPU a plain one
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and not any(words in str(error) for words in ("not enough memory", "can't allocate memory")):
            raise
        raise UserError(f"Out of memory in {part}. It takes less with {' or '.join(ways)}.") from error


class ScheduledAdamW:
    """The optimizer of an OptimizerConfig (by default AdamW) over named groups of parameters, with its schedule and its clipping.

    Each group (a role: policy, value) is clipped to `max_grad_norm` on its own, so that large value gradients do not
    shrink the policy's step. `learning_rates`: of groups that have one of their own. `reaches`: of a group whose loss reaches the
    weights of another, as {"value": "policy"} where the value reads the policy's states: that loss goes through
    `backward_of`, and what it asks of the other's weights is clipped as the group's own. `steps` counts optimizer steps."""

    def __init__(
        self,
        config: OptimizerConfig,
        groups: Mapping[str, Sequence[torch.nn.Parameter]],
        updates: int,
        *,
        learning_rates: Mapping[str, float] | None = None,
        reaches: Mapping[str, str] | None = None,
    ) -> None:
        self._reached = {name: list(groups[other]) for name, other in (reaches or {}).items()}
        # As large as the reached weights: from a first loss to the step alone.
        self._beside: dict[str, list[Tensor]] = {}
        self._config, self._updates, self._update = config, updates, 0
        self._learning_rates = dict.fromkeys(groups, config.learning_rate) | dict(learning_rates or {})
        self._groups = {name: list(parameters) for name, parameters in groups.items()}
        chosen = select("optimizer", config.optimizer, config.optimizer_options, where="optimizer_options")
        self._optimizer: torch.optim.Optimizer = chosen.build(
            groups=[{"params": own, "name": name} for name, own in self._groups.items()], settings=config
        )
        self.steps = 0

    def next_update(self) -> float:
        """Sets the learning rates of the update that begins, and returns config.learning_rate as it stands there."""
        factor = learning_rate_at(
            self._update,
            updates=self._updates,
            schedule=self._config.lr_schedule,
            warmup=self._config.warmup_updates,
            options=self._config.lr_schedule_options,
        )
        self._update += 1
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rates[group["name"]] * factor
        return self._config.learning_rate * factor

    def zero_grad(self) -> None:
        """Before the backward passes of a step; gradients become None."""
        self._optimizer.zero_grad(set_to_none=True)
        self._beside.clear()

    def _gradients_beside(self, group: str) -> list[Tensor]:
        if group not in self._beside:
            self._beside[group] = [torch.zeros_like(p) for p in self._reached.get(group, ())]
        return self._beside[group]

    def backward_of(self, group: str, loss: Tensor) -> None:
        """Adds the gradients of a loss of this group, that of the weights that it only reaches apart from their own."""
        own = self._groups[group]
        found = torch.autograd.grad(loss, [*own, *self._reached[group]], allow_unused=True)
        for parameter, gradient in zip(own, found, strict=False):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        for beside, gradient in zip(self._gradients_beside(group), found[len(own) :], strict=True):
            if gradient is not None:
                beside.add_(gradient)

    def step(self) -> dict[str, float]:
        """Clips, steps, and returns each group's gradient norm before clipping.

        Raises NonFiniteError before stepping, so that the weights stay those of the last good step."""
        limit = self._config.max_grad_norm if self._config.max_grad_norm > 0 else math.inf
        norms = {}
        own = [distributed.gradients(parameters) for parameters in self._groups.values()]
        besides = [self._gradients_beside(group) for group in self._groups]
        distributed.add_up(*itertools.chain(*own, *besides))
        for (group, parameters), gradients, beside in zip(self._groups.items(), own, besides, strict=True):
            norm = torch.nn.utils.get_total_norm([*gradients, *beside])
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
            for gradient in beside:
                gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0))
            norms[group] = float(require_finite(f"the {group} gradient norm", norm, hint=_LOWER))
        for name, reached in self._reached.items():
            for parameter, gradient in zip(reached, self._beside[name], strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._beside.clear()
        self._optimizer.step()
        self.steps += 1
        return norms

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and where the schedule is, as tensors and plain values."""
        return {"optimizer": self._optimizer.state_dict(), "update": self._update, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._update, self.steps = state["update"], state["steps"]


def shuffled_batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row indices, `size` at a time and without end: every row once before any row again; a batch may span two passes."""
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(rows, generator=generator)])
        yield order[:size]
        order = order[size:]


def minibatches(rows: int, *, epochs: int, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row indices for epochs x count optimizer steps: every epoch sees each row once, in an order of its own."""
    for _ in range(epochs):
        yield from torch.randperm(rows, generator=generator).chunk(count)


def micro_batches(sequences: Sequences, rows: Tensor, size: int) -> Iterator[Tensor]:
    """`rows` in pieces of at most `size`, rows of like length together, so that little of a piece is padding.

    Where several processes share a run, the rows of this one: sums over them are put together by `across_processes`, and
    gradients by ScheduledAdamW."""
    lengths = sequences.prompt_mask.sum(1) + sequences.response_mask.sum(1)
    rows = rows.to(lengths.device)
    yield from own_pieces(rows[lengths[rows].argsort(stable=True)], size)


def stacked(first: Sequences, second: Sequences) -> Sequences:
    """The rows of `first` and below them those of `second`, padded to the longest prompt and the longest response of both."""

    def join(above: Tensor, below: Tensor, *, left: bool) -> Tensor:
        width = max(above.shape[1], below.shape[1])
        missing = [width - part.shape[1] for part in (above, below)]
        return torch.cat(
            [
                torch.nn.functional.pad(part, (by, 0) if left else (0, by))
                for part, by in zip((above, below), missing, strict=True)
            ]
        )

    return Sequences(
        join(first.prompt_ids, second.prompt_ids, left=True),
        join(first.prompt_mask, second.prompt_mask, left=True),
        join(first.response_ids, second.response_ids, left=False),
        join(first.response_mask, second.response_mask, left=False),
    )


def calibration_shares(confidence: Tensor, right: Tensor, bins: int = 10) -> Tensor:
    """[N]: what each answer adds to the expected calibration error, which is their mean: over equal-width bins of confidence, the
    distance of mean confidence from the share that is right (Guo et al., arXiv 1706.04599). `confidence` is .5 to 1, `right` 0 to 1."""
    which = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    gap = confidence - right
    side = torch.zeros(bins, dtype=gap.dtype, device=gap.device).index_add_(0, which, gap).sign()
    return side[which] * gap


def add_up(*tensors: Tensor) -> None:
    """Puts together what each process computed of its own rows and left at zero elsewhere."""
    distributed.add_up(*tensors)


def own_pieces(rows: Tensor, size: int) -> Iterator[Tensor]:
    """This process's share of `rows` (all of them, where there is but one process), at most `size` at a time."""
    distributed.refuse_idle(len(rows))
    yield from distributed.passes(rows, size)


def across_processes(sums: Mapping[str, float]) -> Mapping[str, float]:
    """Sums over the rows of `micro_batches`, over the rows of all processes."""
    return distributed.total(sums)


def asked_once(ask: Callable[[], T]) -> T:
    """What `ask` gives, asked by one of the processes that share a run and told to all: for what costs money."""
    return distributed.asked_once(ask)


if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = partial(moved, __name__)  # names that were here once
