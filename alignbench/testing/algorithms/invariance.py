"""Checks of an algorithm's updates: what must make no difference to the weights beyond rounding."""

from __future__ import annotations

import torch

from alignbench.optimizer_config import RolloutConfig
from alignbench.plugins import Component
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, PropertyBroken
from alignbench.testing.trial import Trial, disguised, gap, permuted

ROUNDING = 1e-3
"""The share of a movement that summing in another order may cost. Rounding stays far below
it (KTO's is the largest), faults lie above."""
SAME_UPDATE = f"a difference in the weights of at most {ROUNDING:g} of their movement"

check = CheckList()


@check(
    causes="a mean over the micro-batch in place of the batch, or a normalisation within the micro-batch.",
    within=SAME_UPDATE,
)
def micro_batches_change_memory_alone(component: Component, seed: int) -> str:
    """micro_batch_size makes no difference beyond rounding."""
    shares = []
    for size in (5, 1):
        whole, pieces = Trial(component, seed), Trial(component, seed, micro_batch_size=size)
        for trial in (whole, pieces):
            for _ in range(2):
                trial.update()
        shares.append(_same(whole, pieces, f"micro_batch_size={size} instead of the whole batch"))
    return _margin(*shares)


@check(
    causes="token ids compared with EOS or PAD in place of a mask, or a tensor read beyond the mask.",
    within=SAME_UPDATE,
)
def tokens_at_padding_are_not_read(component: Component, seed: int) -> str:
    """What stands at padding makes no difference."""
    rng = Seeds(seed).torch("garbage")
    plain, odd = Trial(component, seed), Trial(component, seed)
    for _ in range(2):
        plain.update()
        odd.update(disguised(odd.batch(), rng=rng))
    return _margin(_same(plain, odd, "Other token ids at padding"))


@check(
    causes="a mean or whitening over all columns, the last column taken for the last token, or values not masked.",
    within=SAME_UPDATE,
)
def padding_makes_no_difference(component: Component, seed: int) -> str:
    """More columns of padding, on the left of prompts and on the right of responses, make no difference."""
    shares = []
    for left, right in ((2, 0), (0, 3)):
        plain, wide = Trial(component, seed), Trial(component, seed)
        for _ in range(2):
            plain.update()
            wide.update(disguised(wide.batch(), left=left, right=right))
        shares.append(_same(plain, wide, f"{left} columns of padding at prompts and {right} at responses"))
    return _margin(*shares)


@check(causes="rows compared with the wrong neighbours, or scores and sequences sorted apart.", within=SAME_UPDATE)
def order_makes_no_difference(component: Component, seed: int) -> str:
    """The rows of a batch in another order, whole groups together, make no difference where one step takes them all."""
    plain, mixed = (Trial(component, seed, minibatches=1) for _ in range(2))
    group = getattr(plain.config, "samples_per_prompt", 1)
    turns = len(plain.config.sources) if isinstance(plain.config, RolloutConfig) else 1
    rng = Seeds(seed).torch("order of rows")
    for _ in range(2):
        plain.update()
        mixed.update(permuted(mixed.batch(), rng, group=group, turns=turns))
    return _margin(_same(plain, mixed, "Another order of the rows"))


def _margin(*shares: float) -> str:
    return f"{max(shares):.2g} of the movement, of at most {ROUNDING:g}"


def _same(left: Trial, right: Trial, what: str) -> float:
    if not bool(torch.isfinite(right.weights()).all()):
        raise PropertyBroken(f"{what} gave weights that are not finite.")
    if not (share := gap(left, right)) <= ROUNDING:
        raise PropertyBroken(
            f"{what} changed the weights by {share:.2g} of the movement; rounding is below {ROUNDING:g}."
        )
    return share
