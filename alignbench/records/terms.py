"""What a loss is made of, as a paper writes it: what `PolicyOptimizer.stated_loss` is given.

Numbers are float64, shapes [B, R] as in `records.Sequences`, log-probabilities in nats and 0 outside the mask. What depends on the
weights as they stand at a step has a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from alignbench.records.scores import RewardParts


@dataclass(frozen=True)
class ResponseTerms:
    """Log-probabilities of the tokens of B responses, [B, R]: under the policy at this step (`logprobs`) and before the first step
    of its update (`before`), and under the reference. `mask` [B, R] bool is True at response tokens. `reference_kl` [B, R]:
    KL(pi_ref || pi) over all tokens before each of them, at this step; None where only the tokens' own are known."""

    logprobs: Tensor
    before: Tensor
    reference: Tensor
    mask: Tensor
    reference_kl: Tensor | None = None


@dataclass(frozen=True)
class PairTerms:
    """B pairs: row i of both answers one prompt. `probability` [B]: that the chosen one is preferred."""

    chosen: ResponseTerms
    rejected: ResponseTerms
    probability: Tensor


@dataclass(frozen=True)
class LabelTerms:
    """B responses, `good` [B] bool or bad. `prompt` [B] numbers the prompts that they answer, in the order of their token ids.
    `across` [B, B]: log pi / pi_ref of response j as an answer to the prompt of row i, without gradient."""

    responses: ResponseTerms
    good: Tensor
    prompt: Tensor
    across: Tensor


@dataclass(frozen=True)
class RolloutTerms:
    """B scored responses at the config's temperature, groups of samples_per_prompt neighbours; `rows` are those that this step
    learns from. `untempered`: the same at temperature 1. `scores` [B] are raw, `finished` [B] bool.

    `values`, `values_before` [B, R + 1]: the scalar role that is trained beside the policy, at the states before each token and, in
    the column after a row's last token, at the end; 0 beyond it, None where there is none. `shared`: whether it is read from the
    policy's own states. `earlier_kl`: mean log pi / pi_ref of a response in each update before this one. `sampled` [B, R]: what the
    sampler says of each token, where it was not the policy itself; else None. `max_response_tokens`: the policy's, which none of the
    responses need reach. `parts`: what the scores are sums of; None where they are one number each."""

    responses: ResponseTerms
    untempered: ResponseTerms
    scores: Tensor
    finished: Tensor
    rows: Tensor
    values: Tensor | None
    values_before: Tensor | None
    shared: bool
    earlier_kl: tuple[float, ...]
    sampled: Tensor | None = None
    max_response_tokens: int = 0
    parts: RewardParts | None = None


Terms = ResponseTerms | PairTerms | LabelTerms | RolloutTerms
"""By what a config consumes: demonstrations, preferences, labels, rollouts."""
