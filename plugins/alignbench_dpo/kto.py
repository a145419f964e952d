"""KTO: each response is judged alone, against what the policy gains on responses to other prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from alignbench import REFERENCE, LabelledBatch, LabelTerms, Policy, Seeds, Sequences, UpdateReport, functional
from alignbench_dpo import equations
from alignbench_dpo.config import KTOConfig
from alignbench_dpo.losses import kto_loss
from alignbench_dpo.pairs import Learner

LabelJudge = Callable[[Tensor, Tensor], Tensor]
"""(log pi / pi_ref of each response, whether it is good) -> its loss."""


class LabelLearner(Learner):
    """One step per batch of single responses, whatever is made of each."""

    def _step(self, batch: LabelledBatch, judge: LabelJudge, beta: float, origin: Tensor) -> dict[str, float]:
        """One optimizer step on the mean loss of the batch's responses; returns means over them. `origin`: the log-ratio above which a
        response counts as good."""
        sums = Counter[str]()
        self._optimizer.zero_grad()
        every = torch.arange(len(batch))
        for rows in functional.micro_batches(batch.sequences, every, 2 * self._micro_batch_size):
            part = batch.select(rows)
            assert part.ref_logprobs is not None, "uses_reference is True"
            logprobs = functional.summed_logprobs(self._policy, part.sequences)
            ratio = logprobs - part.ref_logprobs
            loss = judge(ratio, part.good)
            functional.require_finite("the preference loss", loss.detach(), hint="Lower the learning rate.")
            # Divided by the responses of the whole batch: the step does not depend on micro_batch_size.
            (loss.sum() / len(batch)).backward()
            sums.update(measure(loss.detach(), logprobs.detach(), ratio.detach(), part.good, origin))
        norms = self._optimizer.step()
        sums = functional.across_processes(sums)
        tokens = batch.sequences.response_mask.sum()
        return {**means(sums, batch.good, beta), "gradient_norm": norms["policy"], "tokens": float(tokens)}


class KTO(LabelLearner):
    """Ethayarajh et al. (arXiv 2402.01306): the good responses are desirable, the bad ones undesirable.

    No optimum is known: the loss saturates on both sides, and its reference point moves with the policy."""

    def __init__(self, config: KTOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        super().__init__(config, policy, updates)
        self._config = config

    @classmethod
    def stated_loss(cls, config: KTOConfig, terms: LabelTerms) -> Tensor:
        return equations.kto(config, terms)

    def update(self, batch: LabelledBatch) -> UpdateReport:
        # 1. The reference point z0, before the step; no gradient flows through it.
        mismatched = mismatch(batch.sequences)
        z0 = torch.zeros((), device=batch.good.device)
        if mismatched is not None:
            with torch.no_grad():
                ratios = functional.summed_logprobs(self._policy, mismatched) - functional.summed_logprobs(
                    self._policy, mismatched, role=REFERENCE
                )
            z0 = ratios.mean().clamp(min=0)

        # 2. One step on all responses of the batch.
        config, learning_rate = self._config, self._optimizer.next_update()
        weights = config.beta, config.desirable_weight, config.undesirable_weight
        measured = self._step(batch, lambda ratio, good: kto_loss(ratio, good, z0, *weights), config.beta, z0)
        figures = {"z0": float(z0), "mismatched": float(len(mismatched or ())), "learning_rate": learning_rate}
        return UpdateReport({**measured, **figures}, optimizer_steps=1)


def measure(loss: Tensor, logprobs: Tensor, ratio: Tensor, good: Tensor, origin: Tensor) -> dict[str, float]:
    """Sums over responses of what is logged, the good ones being what other algorithms call chosen."""
    right = torch.where(good, ratio > origin, ratio < origin)
    figures = {"loss": loss.sum(), "accuracy": right.sum()}
    for name, side in (("chosen", good), ("rejected", ~good)):
        figures |= {f"logprob_{name}": logprobs[side].sum(), f"log_ratio_{name}": ratio[side].sum()}
    return {name: float(value) for name, value in figures.items()}


def means(sums: dict[str, float], good: Tensor, beta: float) -> dict[str, float]:
    """Over the whole batch, or over its good or its bad responses, where it has any. `accuracy`: the share of responses that lie on
    their label's side of the origin."""
    count = {"chosen": int(good.sum()), "rejected": int((~good).sum())}
    of = {name: count.get(name.rpartition("_")[2], len(good)) for name in sums}
    found = {name: total / of[name] for name, total in sums.items() if of[name]}
    found |= {f"reward_{side}": beta * found[f"log_ratio_{side}"] for side, known in count.items() if known}
    if all(count.values()):
        found["margin"] = found["reward_chosen"] - found["reward_rejected"]
    return found


def mismatch(sequences: Sequences) -> Sequences | None:
    """The batch's prompts, each with a response to another prompt; None where no row has another prompt.

    The paper shifts responses against prompts by one. A batch may hold several responses to one prompt, so rows are sorted
    by prompt first, the most frequent in front, and shifted by its frequency: then a row meets its own prompt only where
    one prompt has more than half of all rows, and those few are left out."""
    shown = sequences.prompt_ids.masked_fill(~sequences.prompt_mask.bool(), -1)
    prompt, count = shown.unique(dim=0, return_inverse=True, return_counts=True)[1:]
    order = (-count[prompt] * len(prompt) + prompt).argsort(stable=True)
    donor = torch.empty_like(order)
    donor[order] = order.roll(-int(count.max()))
    kept = (prompt != prompt[donor]).nonzero().squeeze(1)
    if not len(kept):
        return None
    return Sequences(
        sequences.prompt_ids[kept],
        sequences.prompt_mask[kept],
        sequences.response_ids[donor[kept]],
        sequences.response_mask[donor[kept]],
    )
