"""What becomes of the truth where a response is chosen by a source: the best of n from the SFT model (arXiv 2112.09332, 2210.10760)."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor

from alignbench.contracts import DataSource, Policy, RewardSource
from alignbench.errors import UserError
from alignbench.evaluation.frontier import Frontier, sample
from alignbench.evaluation.reward_models.found import Found, found, name, spearman
from alignbench.records import Direction, MetricSpec, Prompt
from alignbench.results.compared.statistics import summarise
from alignbench.seeds import Seeds


def sizes(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, which is the last."""
    return [*(n for n in (2**i for i in range(most.bit_length())) if n < most), most]


def draw_pool(
    policy: Policy, reward: RewardSource, data: DataSource, prompts: Sequence[Prompt], n: int, seeds: Seeds
) -> Frontier:
    """N responses of the SFT model, which is the policy's reference, to each of P prompts: what the source and the truth say of each."""
    with torch.no_grad():
        pool = sample(policy, prompts, n=n, temperature=1.0, data=data, reward=reward, seeds=seeds, stream="pool")
    if pool.gold.isnan().any():
        raise UserError(f"{type(data).__name__} knows the truth of some responses and not of others.")
    return pool


def expected_best(chosen_by: Tensor, worth: Tensor, n: int) -> Tensor:
    """[P]: what the best by `chosen_by` of n of a prompt's N responses is worth, on average over all choices of n. Sorted upwards, the i-th
    is the best of C(i - 1, n - 1) of the C(N, n) choices; equals are each as good as their mean. Unbiased for n fresh responses."""
    order = chosen_by.argsort(dim=1)
    ranked, value = chosen_by.gather(1, order), worth.gather(1, order)
    level = torch.nn.functional.pad((ranked.diff(dim=1) > 0).long().cumsum(1), (1, 0))
    sums = torch.zeros_like(value).scatter_add_(1, level, value)
    counts = torch.zeros_like(value).scatter_add_(1, level, torch.ones_like(value))
    value = (sums / counts.clamp(min=1)).gather(1, level)
    size = value.shape[1]
    weights = torch.tensor([comb(i, n - 1) / comb(size, n) for i in range(size)], dtype=value.dtype)
    return value @ weights


def under_optimisation(pool: Frontier) -> Found:
    """Gold and proxy of the best of n for each n, how much gold the best of all gains over a single response, and the rank correlation of
    source and truth among one prompt's responses."""
    total = Found()
    names = [(prompt.id, prompt.cluster or prompt.id) for prompt in pool.prompts]
    gold: dict[int, Tensor] = {}
    for n in sizes(pool.gold.shape[1]):
        gold[n] = expected_best(pool.scores, pool.gold, n)
        spec = MetricSpec(name(f"gold_at_{n}"), Direction.HIGHER, f"gold reward of the best of {n}")
        total += _of_prompts(spec, names, gold[n])
    most = max(gold)
    total += _of_prompts(MetricSpec(name("gold_gain"), Direction.HIGHER, "gold reward"), names, gold[most] - gold[1])
    for n in gold:  # no scores of examples: the unit is the source's own, and two sources are not to be compared in it
        spec = MetricSpec(name(f"proxy_at_{n}"), Direction.NEITHER, f"score of the best of {n}, in the source's unit")
        chosen = _of_prompts(spec, names, expected_best(pool.scores, pool.scores, n))
        total += Found(metrics=summarise(chosen.scores, chosen.specs))
    rows = zip(names, pool.scores.tolist(), pool.gold.tolist(), strict=True)
    told = [(own, spearman(proxy, truth)) for own, proxy, truth in rows if len(set(truth)) > 1]
    if told:  # where all are equally good there is nothing to tell apart
        spec = MetricSpec(name("gold_correlation"), Direction.HIGHER, "rank correlation within a prompt")
        total += found(spec, ((example, value, cluster) for (example, cluster), value in told))
    return total


def _of_prompts(spec: MetricSpec, names: Sequence[tuple[str, str]], values: Tensor) -> Found:
    return found(spec, ((own, value, cluster) for (own, cluster), value in zip(names, values.tolist(), strict=True)))
