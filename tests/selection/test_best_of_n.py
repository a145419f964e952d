"""Best-of-n: its exact distribution, its KL, and that an evaluation gives the best of n."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from alignbench_selection.best_of_n import BestOfN
from alignbench_selection.config import BestOfNConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignbench import Consumes, DataSource, ExactProblem, Prompt, RewardSource, Samples, Seeds, Split, UserError
from alignbench.evaluation.respond import respond
from alignbench.functional import best_of_n, best_of_n_kl_bound
from tests import tiny

property_test = settings(deadline=None, derandomize=True, max_examples=60)


def by_enumeration(reference: Sequence[float], rewards: Sequence[float], n: int) -> list[float]:
    """Every n-tuple of draws; the first of those with the highest reward is given."""
    found = [0.0] * len(reference)
    for draws in itertools.product(range(len(reference)), repeat=n):
        best = max(rewards[y] for y in draws)
        found[next(y for y in draws if rewards[y] == best)] += math.prod(reference[y] for y in draws)
    return found


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-2, 2)), min_size=1, max_size=6), st.sampled_from([2, 3, 4]))
@property_test
def test_it_is_what_enumeration_gives(world: list[tuple[int, int]], n: int) -> None:
    """With ties, and responses that the reference never gives."""
    total = sum(weight for weight, _ in world)
    if total == 0:
        return
    reference, rewards = [weight / total for weight, _ in world], [float(reward) for _, reward in world]
    found = best_of_n(torch.tensor([reference]).double(), torch.tensor([rewards]).double(), n)[0].tolist()
    assert found == pytest.approx(by_enumeration(reference, rewards, n), abs=1e-6)


def random_problem(seed: int, size: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.softmax(2 * torch.randn(3, size, generator=generator, dtype=torch.float64), 1)
    return reference, torch.randn(3, size, generator=generator, dtype=torch.float64)


def test_a_tie_is_not_broken_by_rounding() -> None:
    reference = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    rewards = torch.tensor([[0.3, 0.1 + 0.2, 1e3, 1e3 + 1e-8]], dtype=torch.float64)
    assert float(rewards[0, 0]) != float(rewards[0, 1])
    found, expected = (best_of_n(reference, r, 3) for r in (rewards, torch.tensor([[0.0, 0.0, 1.0, 1.0]])))
    torch.testing.assert_close(found, expected)
    assert float(found[0, 1] / found[0, 0]) == pytest.approx(2)


@pytest.mark.parametrize("n", [2, 3, 8, 64])
def test_its_kl_is_at_most_the_bound(n: int) -> None:
    reference, rewards = random_problem(n)
    found = best_of_n(reference, rewards, n)
    torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))
    kl = torch.where(found > 0, found * (found / reference).log(), 0.0).sum(1)
    assert (kl > 0).all()
    assert float(kl.max()) <= best_of_n_kl_bound(n) == pytest.approx(math.log(n) - (n - 1) / n)


def test_the_bound_is_met_where_no_response_has_weight() -> None:
    reference, rewards = torch.full((1, 20_000), 1 / 20_000).double(), torch.arange(20_000)[None].double()
    found = best_of_n(reference, rewards, 4)
    kl = float((found * (found / reference).log()).sum())
    assert kl == pytest.approx(best_of_n_kl_bound(4), abs=1e-3)


def test_the_config_declares_a_choice_and_no_training() -> None:
    config = BestOfNConfig(n=5)
    assert (config.consumes, config.candidates, config.needs_scores) == (Consumes.NOTHING, 5, True)
    with pytest.raises(UserError, match="n=1 must be 2 to 10000"):
        BestOfNConfig(n=1)


def test_the_optimum_is_that_of_its_n() -> None:
    reference, rewards = random_problem(0)
    world = ExactProblem(tuple((y,) for y in range(40)), reference, rewards)
    assert torch.equal(BestOfN.optimum(BestOfNConfig(n=5), world), best_of_n(reference, rewards, 5))
    policy = tiny.scratch()
    idle = BestOfN(BestOfNConfig(), policy=policy, updates=0, seeds=Seeds(0))
    assert (idle.update(None).optimizer_steps, idle.state_dict()) == (0, {})


class NoTruth(DataSource):
    def prompts(self, split: Split) -> Sequence[Prompt]:
        return tiny.PROMPTS


class Favours(RewardSource):
    """A score for each text, drawn once."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, float]] = []

    def score(self, samples: Samples) -> Tensor:
        scores = [Seeds(3).python(text).random() for text in samples.texts]
        self.seen += zip((p.id for p in samples.prompts), samples.texts, scores, strict=True)
        return torch.tensor(scores)


def test_an_evaluation_gives_the_best_of_n_candidates() -> None:
    policy, reward, n = tiny.scratch(), Favours(), 4
    policy.freeze_reference()
    given = respond(
        policy, tiny.PROMPTS, n=2, temperature=1.0, data=NoTruth(), reward=reward,
        rng=torch.Generator().manual_seed(0), candidates=BestOfNConfig(n=n).candidates,
    )  # fmt: skip
    drawn = reward.seen[: len(tiny.PROMPTS) * 2 * n]
    assert [g.prompt.id for g in given] == [p.id for p in tiny.PROMPTS for _ in range(2)]
    for i, generation in enumerate(given):
        group = drawn[i * n : (i + 1) * n]
        assert {name for name, _, _ in group} == {generation.prompt.id}
        text, score = max(((t, s) for _, t, s in group), key=lambda pair: pair[1])
        assert (generation.response, generation.proxy_reward) == (text, pytest.approx(score))


def test_what_is_given_is_distributed_as_the_optimum_says() -> None:
    """One-token responses to one prompt, 6000 of them: the frequencies are those of the exact distribution."""
    policy, reward, n, count = tiny.scratch(max_response_tokens=1), Favours(), 3, 6000
    policy.freeze_reference()
    ids = torch.arange(12)
    shown = policy.encode([tiny.PROMPTS[0]] * 12, ["a"] * 12).sequences
    every = type(shown)(shown.prompt_ids, shown.prompt_mask, ids[:, None], torch.ones(12, 1, dtype=torch.bool))
    with torch.no_grad():
        reference = policy.logprobs(every).logprobs.double().exp().T
    texts = policy.tokenizer.batch_decode(ids[:, None], skip_special_tokens=True)
    rewards = torch.tensor([[Seeds(3).python(text).random() for text in texts]]).double()
    expected = best_of_n(reference, rewards, n)[0]
    rng = torch.Generator().manual_seed(0)
    given = respond(
        policy, tiny.PROMPTS[:1], n=count, temperature=1.0, data=NoTruth(), reward=reward, rng=rng, candidates=n
    )
    for text in set(texts):
        probability = float(sum(p for t, p in zip(texts, expected.tolist(), strict=True) if t == text))
        share = sum(g.response == text for g in given) / count
        assert abs(share - probability) < 4.5 * math.sqrt(max(probability * (1 - probability), 1e-3) / count), text
