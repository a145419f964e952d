"""The exact optima against gradient ascent with the very losses, on tables and over every completion."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch
from alignbench_group.config import GRPOConfig, RLOOConfig
from alignbench_group.groups import Experience
from alignbench_group.grpo import GRPO, clipped_tokens
from alignbench_group.relative import with_kl
from alignbench_group.rloo import RLOO
from torch import Tensor

from alignbench import ExactProblem, Sequences, functional

EOS = 1
LETTERS = (4, 5)
ENDED = [(), *((a,) for a in LETTERS), *itertools.product(LETTERS, LETTERS)]
COMPLETIONS = (*((*w, EOS) for w in ENDED), *itertools.product(LETTERS, LETTERS, LETTERS))
EQUAL_LENGTHS = tuple(itertools.product(LETTERS, (*LETTERS, 6)))
KEEP = {"kl_coef": 0.5, "missing_eos": "keep"}


def problem(completions: tuple[tuple[int, ...], ...] = COMPLETIONS, seed: int = 0, prompts: int = 2) -> ExactProblem:
    generator = torch.Generator().manual_seed(seed)
    shape = (prompts, len(completions))
    reference = torch.softmax(torch.randn(shape, generator=generator, dtype=torch.float64), 1)
    return ExactProblem(completions, reference, torch.randn(shape, generator=generator, dtype=torch.float64))


class Table:
    """A policy with a logit for every token at every state of one prompt, as [Y, R] log-probabilities of all completions."""

    def __init__(self, completions: tuple[tuple[int, ...], ...], probabilities: Tensor) -> None:
        self.completions = completions
        prefixes = sorted({c[:t] for c in completions for t in range(len(c))})
        tokens = sorted({token for c in completions for token in c})
        width = max(len(c) for c in completions)
        self.mask = torch.arange(width)[None] < torch.tensor([len(c) for c in completions])[:, None]
        self.state, self.token = (torch.zeros(len(completions), width, dtype=torch.long) for _ in range(2))
        mass = torch.zeros(len(prefixes), len(tokens), dtype=torch.float64)
        for y, completion in enumerate(completions):
            for t, token in enumerate(completion):
                self.state[y, t], self.token[y, t] = prefixes.index(completion[:t]), tokens.index(token)
                mass[self.state[y, t], self.token[y, t]] += probabilities[y]
        self.logits = (mass / mass.sum(1, keepdim=True)).log().requires_grad_()

    def logprobs(self) -> Tensor:
        table = torch.log_softmax(self.logits, 1)
        return table[self.state, self.token].masked_fill(~self.mask, 0.0)

    def ascend(self, loss: Callable[[Tensor, Experience], Tensor], steps: int = 800, rate: float = 0.15) -> Tensor:
        """Follows `loss(log-probabilities, experience)`; returns the distribution over completions. Each logit's step is
        divided by how often its token is chosen, as in a natural gradient: rare responses settle as fast as others."""
        ref = self.logprobs().detach()
        ids = torch.zeros_like(self.token)
        sequences = Sequences(ids[:, :1], self.mask[:, :1], ids, self.mask)
        for _ in range(steps):
            new = self.logprobs()
            experience = Experience(
                sequences,
                new.detach(),
                ref,
                torch.zeros(len(ref), dtype=torch.float64),
                torch.ones_like(ref),
                torch.ones(len(ref), dtype=torch.bool),
            )
            (gradient,) = torch.autograd.grad(loss(new, experience), self.logits)
            chosen = torch.zeros_like(self.logits)
            probability = new.detach().sum(1, keepdim=True).exp().expand_as(self.mask)[self.mask]
            chosen.index_put_((self.state[self.mask], self.token[self.mask]), probability, accumulate=True)
            with torch.no_grad():
                self.logits -= (rate * gradient / chosen.clamp(min=1e-300)).clamp(-0.5, 0.5)
        return self.logprobs().detach().sum(1).exp()


def grpo_ascent(config: GRPOConfig, world: ExactProblem, row: int, k: float = float("inf")) -> Tensor:
    """GRPO's loss in expectation over large groups: every completion weighs by its probability; a mean over k rewards that
    includes the response's own leaves 1 - 1/k of the deviation from the mean."""
    table = Table(world.completions, world.reference[row])

    def loss(new: Tensor, experience: Experience) -> Tensor:
        p = new.detach().sum(1).exp()
        rewards = world.rewards[row].clone()
        if config.kl_in == "reward":
            rewards -= config.kl_coef * (experience.logprobs - experience.ref_logprobs).sum(1)
        centred = (rewards - (p * rewards).sum()) * (1 - 1 / k)
        if config.scale_by_std:
            centred = centred / ((p * centred**2).sum().sqrt() + config.std_eps)
        part = dataclasses.replace(experience, advantages=centred)
        weights = p / table.mask.sum(1) if config.length_normalisation == "response" else p
        kl_coef = config.kl_coef if config.kl_in == "loss" else 0.0
        found = clipped_tokens(new, part, weights, config.clip_ratio, config.clip_ratio_high)
        return with_kl(found, new, part, weights, kl_coef, config.kl_estimator).total

    return table.ascend(loss)


def grpo(**changes: object) -> GRPOConfig:
    return GRPOConfig(**(KEEP | {"samples_per_prompt": 64, "length_normalisation": "none"} | changes))


def optimum(config: GRPOConfig, world: ExactProblem) -> Tensor:
    found = GRPO.optimum(config, world)
    assert found is not None
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.sum(1), torch.ones(len(found), dtype=torch.float64))
    return found


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("kl_coef", [0.3, 2.0])
def test_kl_in_the_loss_rests_state_by_state(estimator: str, kl_coef: float) -> None:
    """Groups of 4, whose mean includes the response itself: the penalty then weighs 4/3 as much."""
    config, world = grpo(scale_by_std=False, kl_estimator=estimator, samples_per_prompt=4, kl_coef=kl_coef), problem()
    expected = optimum(config, world)
    tilted = functional.kl_optimum(world.reference, world.rewards, kl_coef)
    for row in range(2):
        found = grpo_ascent(config, world, row, k=4)
        torch.testing.assert_close(found, expected[row], rtol=1e-5, atol=1e-7)
        assert float((found - tilted[row]).abs().sum()) > 0.02, "it is not the optimum of the KL of the response"


def test_kl_in_the_loss_with_advantages_scaled_by_the_groups_deviation() -> None:
    config, world = grpo(), problem()
    expected = optimum(config, world)
    for row in range(2):
        torch.testing.assert_close(grpo_ascent(config, world, row), expected[row], rtol=1e-4, atol=1e-6)


def test_normalisation_by_lengths_that_are_equal_changes_nothing() -> None:
    world = problem(EQUAL_LENGTHS)
    config = grpo(length_normalisation="response")
    torch.testing.assert_close(grpo_ascent(config, world, 0), optimum(config, world)[0], rtol=1e-4, atol=1e-6)
    assert GRPO.optimum(config, problem()) is None, "with lengths that differ it does"


@pytest.mark.parametrize("scale_by_std", [False, True])
@pytest.mark.parametrize("length_normalisation", ["none", "response"])
def test_kl_in_the_reward_rests_at_the_tilted_reference(scale_by_std: bool, length_normalisation: str) -> None:
    """Scaled advantages do not shrink as rewards become equal: their steps end in an oscillation, small here."""
    config = grpo(kl_in="reward", scale_by_std=scale_by_std, length_normalisation=length_normalisation, std_eps=0.1)
    world = problem()
    expected = optimum(config, world)
    torch.testing.assert_close(expected, functional.kl_optimum(world.reference, world.rewards, config.kl_coef))
    for row in range(2):
        torch.testing.assert_close(grpo_ascent(config, world, row), expected[row], rtol=1e-3, atol=1e-5)


def test_rloo_rests_at_the_tilted_reference() -> None:
    """Ascent of E[R] on the table, whose gradient leave-one-out estimates without bias."""
    config, world = RLOOConfig(**KEEP), problem()
    expected = RLOO.optimum(config, world)
    assert expected is not None
    table = Table(COMPLETIONS, world.reference[0])

    def loss(new: Tensor, experience: Experience) -> Tensor:
        rewards = world.rewards[0] - config.kl_coef * (experience.logprobs - experience.ref_logprobs).sum(1)
        p = new.detach().sum(1).exp()
        return -(p * (rewards - (p * rewards).sum()) * new.sum(1)).sum()

    torch.testing.assert_close(table.ascend(loss), expected[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", ["subtract", "replace", "keep"])
def test_the_missing_eos_rule_is_part_of_the_reward(rule: str) -> None:
    world = problem()
    scores = world.rewards.clone()
    cut = torch.tensor([completion[-1] != EOS for completion in COMPLETIONS])
    assert int(cut.sum()) == 8
    if rule == "subtract":
        scores[:, cut] -= 2.0
    if rule == "replace":
        scores[:, cut] = -2.0
    shaped = ExactProblem(COMPLETIONS, world.reference, scores)
    for algorithm, schema in ((RLOO, RLOOConfig), (GRPO, GRPOConfig)):
        options = {"kl_coef": 0.5, "missing_eos_penalty": 2.0}
        options |= {} if schema is RLOOConfig else {"kl_in": "reward"}
        found = algorithm.optimum(schema(**options, missing_eos=rule), world)
        expected = algorithm.optimum(schema(**options, missing_eos="keep"), shaped)
        torch.testing.assert_close(found, expected)
    unclear = problem(EQUAL_LENGTHS)
    assert (RLOO.optimum(RLOOConfig(missing_eos=rule), unclear) is None) == (rule != "keep"), "which ended is not known"


def test_where_theory_gives_none() -> None:
    world = problem()
    for changes in ({"kl_coef": 0.0}, {"temperature": 0.7}):
        assert RLOO.optimum(RLOOConfig(**(KEEP | changes)), world) is None
        for kl_in in ("loss", "reward"):
            assert GRPO.optimum(grpo(kl_in=kl_in, **changes), world) is None
    assert GRPO.optimum(grpo(kl_estimator="k2"), world) is None


def test_edges_of_the_fixed_point() -> None:
    """Completions that the reference never gives stay so; equal rewards leave the reference; a small price is greedy."""
    world = problem()
    reference = world.reference.clone()
    reference[0, [0, 3, 4, 9]] = 0.0
    reference /= reference.sum(1, keepdim=True)
    for estimator in ("k2", "k3"):
        config = grpo(scale_by_std=False, kl_estimator=estimator)
        assert (optimum(config, ExactProblem(COMPLETIONS, reference, world.rewards))[0, [0, 3, 4, 9]] == 0).all()
        flat = ExactProblem(COMPLETIONS, reference, torch.full_like(reference, 3.0))
        torch.testing.assert_close(optimum(config, flat), reference)
        greedy = optimum(grpo(scale_by_std=False, kl_estimator=estimator, kl_coef=1e-7), world)
        assert (greedy.amax(1) > 0.9999).all()
        assert torch.equal(greedy.argmax(1), world.rewards.argmax(1))
    torch.testing.assert_close(optimum(grpo(), flat), reference)
