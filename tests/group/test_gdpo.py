"""GDPO against its paper (arXiv 2601.05242), written down by hand, and what it is for: parts that a sum no longer tells apart."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import torch
from alignbench_group.config import GDPOConfig, GRPOConfig
from alignbench_group.gdpo import GDPO
from alignbench_group.groups import Compared, GroupOptimizer
from alignbench_group.grpo import GRPO
from torch import Tensor

from alignbench import RewardParts, Rollout, Samples, ScoredRollout, Seeds, Sequences
from tests import tiny
from tests.group.test_optimum import KEEP, problem

MASK = torch.ones(8, 3, dtype=torch.bool)
FINISHED = torch.tensor([True] * 5 + [False] + [True] * 2)


def advantages(
    kind: type[GroupOptimizer], values: Tensor, weights: tuple[float, ...], ratios: Tensor | None = None, **options: Any
) -> Tensor:
    """Of 8 responses, two groups of four, with these parts [8, M]."""
    schema = GDPOConfig if kind is GDPO else GRPOConfig
    algorithm = kind.__new__(kind)
    algorithm._config = schema(
        **({"batch_size": 8, "samples_per_prompt": 4, "missing_eos": "keep", "std_eps": 1e-9} | options)
    )
    parts = RewardParts(tuple(f"part {k}" for k in range(len(weights))), weights, values)
    ids = torch.zeros(8, 3, dtype=torch.long)
    samples = Samples((), (), Sequences(ids, MASK, ids, MASK), FINISHED)
    batch = ScoredRollout(Rollout(samples, torch.zeros(8, 3), 1.0), parts.total(), parts)
    found: Compared = algorithm._compared(
        algorithm._rewards(batch, batch.scores), torch.zeros(8, 3) if ratios is None else ratios, MASK
    )
    return found.advantages


def normalised(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    deviation = (sum((x - mean) ** 2 for x in values) / len(values)) ** 0.5
    return [(x - mean) / deviation if deviation else 0.0 for x in values]


def test_each_part_is_normalised_in_its_group_and_their_sum_over_the_batch() -> None:
    values, weights = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double(), (1.0, -0.5, 20.0)
    values[4:, 1] = 0.1  # a group in which one part says nothing
    sums = [0.0] * 8
    for k, weight in enumerate(weights):
        for first in (0, 4):
            for i, worth in enumerate(normalised(values[first : first + 4, k].tolist())):
                sums[first + i] += 0.0 if first == 4 and k == 1 else weight * worth
    assert advantages(GDPO, values, weights).tolist() == pytest.approx(normalised(sums), rel=1e-6)
    assert advantages(GDPO, values, weights, scale_by_batch=False).tolist() == pytest.approx(sums, rel=1e-6)


def test_it_tells_apart_what_grpo_does_not() -> None:
    """Two rewards of 0 or 1: to have both, where others have one, is worth more in GDPO than to have one, where others have none. GRPO
    takes both for the same."""
    both = [[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]  # sums 2, 1, 1, 1
    one = [[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]  # sums 2, 1, 1, 1
    values = torch.tensor([*both, *one]).double()
    grpo = advantages(GRPO, values, (1.0, 1.0))
    torch.testing.assert_close(grpo[:4], grpo[4:])
    gdpo = advantages(GDPO, values, (1.0, 1.0))
    assert float((gdpo[:4] - gdpo[4:]).abs().max()) > 0.1


def test_a_group_whose_sums_are_all_equal_still_says_something() -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]] * 2).double()
    assert not advantages(GRPO, values, (1.0, 1.0)).any()
    weighed = advantages(GDPO, values, (2.0, 1.0))
    assert float(weighed[0]) > 0 > float(weighed[1]), "the part of weight 2 decides"


def test_the_size_of_a_part_means_nothing_and_its_weight_does() -> None:
    values = torch.randn(8, 2, generator=torch.Generator().manual_seed(1)).double()
    plain = advantages(GDPO, values, (1.0, 1.0))
    torch.testing.assert_close(advantages(GDPO, values * torch.tensor([1.0, 1000.0]), (1.0, 1.0)), plain)
    assert float((advantages(GDPO, values, (1.0, 2.0)) - plain).abs().max()) > 0.1
    sized = advantages(GDPO, values, (1.0, 3.0), scale_by_std=False)
    torch.testing.assert_close(
        advantages(GDPO, values * torch.tensor([1.0, 3.0]), (1.0, 1.0), scale_by_std=False), sized
    )


def test_with_its_sizes_and_no_batch_it_is_grpo_without_deviation() -> None:
    values = torch.randn(8, 2, generator=torch.Generator().manual_seed(2)).double()
    ratios = torch.randn(8, 3, generator=torch.Generator().manual_seed(3)).double()
    options = {"kl_in": "reward", "kl_coef": 0.3, "scale_by_std": False}
    mine = advantages(GDPO, values, (1.0, -2.0), ratios, scale_by_batch=False, **options)
    torch.testing.assert_close(mine, advantages(GRPO, values, (1.0, -2.0), ratios, **options))


@pytest.mark.parametrize("rule", ["subtract", "replace"])
def test_a_response_that_was_cut_off_pays_in_a_part_of_its_own(rule: str) -> None:
    values = torch.randn(8, 1, generator=torch.Generator().manual_seed(4)).double()
    found = advantages(GDPO, values, (1.0,), missing_eos=rule, missing_eos_penalty=0.5, scale_by_batch=False)
    kept = values[:, 0].clone()
    if rule == "replace":
        kept[5] = 0.0
    expected = [*normalised(kept[:4].tolist()), *normalised(kept[4:].tolist())]
    for place, worth in enumerate(normalised([0.0, -1.0, 0.0, 0.0])):
        expected[4 + place] += 0.5 * worth
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_a_reward_of_one_number_is_said_once_and_learnt_from(caplog: pytest.LogCaptureFixture) -> None:
    policy = tiny.scratch()
    policy.freeze_reference()
    config = GDPOConfig(updates=2, batch_size=18, samples_per_prompt=3, learning_rate=1e-3, missing_eos="keep")
    algorithm = GDPO(config, policy=policy, updates=2, seeds=Seeds(0))
    with caplog.at_level(logging.WARNING):
        for seed in (0, 1):
            assert algorithm.update(tiny.scored(policy, n=3, seed=seed)).optimizer_steps == 1
    assert [record.getMessage() for record in caplog.records] == [
        "algo=gdpo: the reward gives one number and no parts, as reward=mix does: there is nothing to decouple."
    ]


def test_its_optimum_is_grpos_where_parts_keep_their_sizes() -> None:
    world, reward = problem(), {**KEEP, "kl_in": "reward"}
    mine = GDPO.optimum(GDPOConfig(**reward, scale_by_std=False), world)
    assert mine is not None
    torch.testing.assert_close(mine, GRPO.optimum(GRPOConfig(**reward), world))
    loss = GDPOConfig(**KEEP, scale_by_std=False, length_normalisation="none")
    assert GDPO.optimum(GDPOConfig(**reward), world) is None
    assert GDPO.optimum(loss, world) is None
    unscaled = dataclasses.replace(loss, scale_by_batch=False)
    theirs = GRPO.optimum(GRPOConfig(**KEEP, scale_by_std=False, length_normalisation="none"), world)
    torch.testing.assert_close(GDPO.optimum(unscaled, world), theirs)
