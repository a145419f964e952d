"""The reward model's losses and figures against loops, enumeration and simulation."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from alignbench_rewards.learned import summary
from alignbench_rewards.losses import annotator_ceiling, bradley_terry, index_pairs, pair_figures, plackett_luce
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignbench import Annotator, Prompt, Ranking
from tests import tiny

property_test = settings(deadline=None, derandomize=True, max_examples=60)


def ranking(ranks: tuple[int, ...], responses: tuple[str, ...] | None = None, name: str = "a") -> Ranking:
    return Ranking(tiny.prompt(name), responses or tuple("abcdefgh"[: len(ranks)]), ranks)


@st.composite
def scored_rankings(draw: st.DrawFn) -> tuple[Tensor, list[Ranking]]:
    """Rankings of 1 to 4 responses, with ties and identical responses, and scores in float64."""
    rankings = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 4))
        ranks = tuple(draw(st.integers(0, 3)) for _ in range(size))
        responses = tuple(draw(st.sampled_from("xyz")) for _ in range(size))
        rankings.append(ranking(ranks, responses, draw(st.sampled_from("ab"))))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    return torch.randn(sum(len(r.ranks) for r in rankings), generator=generator, dtype=torch.float64), rankings


def by_prompt(scores: Tensor, rankings: list[Ranking]) -> list[tuple[list[float], Ranking]]:
    rest = scores.tolist()
    groups = []
    for r in rankings:
        groups.append((rest[: len(r.ranks)], r))
        rest = rest[len(r.ranks) :]
    return groups


def preferred_pairs(r: Ranking) -> list[tuple[int, int]]:
    """(better, worse) of every pair that differs in rank and in text."""
    k = range(len(r.ranks))
    return [(i, j) for i in k for j in k if r.ranks[i] < r.ranks[j] and r.responses[i] != r.responses[j]]


@given(scored_rankings())
@property_test
def test_bradley_terry_averages_within_the_prompt(sample: tuple[Tensor, list[Ranking]]) -> None:
    """Equation 1 of arXiv 2203.02155 by a double loop, summed over prompts; each counts once, however many pairs."""
    scores, rankings = sample
    total = 0.0
    for own, r in by_prompt(scores, rankings):
        losses = [math.log(1 + math.exp(own[worse] - own[better])) for better, worse in preferred_pairs(r)]
        total += sum(losses) / len(losses) if losses else 0.0
    assert float(bradley_terry(scores, rankings)) == pytest.approx(total, rel=1e-6, abs=1e-9)


@given(scored_rankings())
@property_test
def test_pairs_and_their_weights(sample: tuple[Tensor, list[Ranking]]) -> None:
    _, rankings = sample
    pairs, expected, first = index_pairs(rankings), [], 0
    for r in rankings:
        own = preferred_pairs(r)
        expected += [(first + a, first + b, 1 / len(own)) for a, b in own]
        first += len(r.ranks)
    got = zip(pairs.better.tolist(), pairs.worse.tolist(), pairs.weight.tolist(), strict=True)
    assert [(a, b, pytest.approx(w)) for a, b, w in expected] == list(got)


def test_bradley_terry_gradient_pulls_apart_and_saturates() -> None:
    scores = torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    bradley_terry(scores, [ranking((2, 0, 1))]).backward()
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad, [1 / 3, -1 / 3, 0.0], rtol=1e-6, atol=1e-9)
    extreme = torch.tensor([-2000.0, 2000.0], requires_grad=True)
    loss = bradley_terry(extreme, [ranking((0, 1))])
    loss.backward()
    assert float(loss.detach()) == 4000
    assert extreme.grad is not None
    assert extreme.grad.tolist() == [-1, 1]


@given(scored_rankings(), st.floats(0, 3))
@property_test
def test_a_margin_grows_with_the_difference_of_the_ratings(sample: tuple[Tensor, list[Ranking]], margin: float) -> None:
    """Equation 2 of arXiv 2307.09288, pair by pair; a ranking without ratings has none."""
    scores, plain = sample
    rated = [
        dataclasses.replace(r, scores=tuple(-0.3 * rank for rank in r.ranks)) if i % 3 else r
        for i, r in enumerate(plain)
    ]
    total = 0.0
    for own, r in by_prompt(scores, rated):
        apart = [margin * (r.scores[a] - r.scores[b]) if r.scores else 0.0 for a, b in preferred_pairs(r)]
        losses = [
            math.log(1 + math.exp(own[b] - own[a] + m)) for (a, b), m in zip(preferred_pairs(r), apart, strict=True)
        ]
        total += sum(losses) / len(losses) if losses else 0.0
    assert float(bradley_terry(scores, rated, margin)) == pytest.approx(total, rel=1e-6, abs=1e-9)
    assert float(bradley_terry(scores, rated)) == float(bradley_terry(scores, plain))


def sequential_choice(scores: list[float], order: tuple[int, ...]) -> float:
    """Plackett-Luce: the best is chosen among all with softmax probability, the next among the rest, and so on."""
    probability, left = 1.0, list(order)
    while left:
        probability *= math.exp(scores[left[0]]) / sum(math.exp(scores[k]) for k in left)
        left.pop(0)
    return probability


@pytest.mark.parametrize("size", [2, 3, 4])
def test_plackett_luce_is_the_log_likelihood_of_each_permutation(size: int) -> None:
    scores = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    likelihoods = []
    for order in itertools.permutations(range(size)):
        ranks = tuple(order.index(k) for k in range(size))
        loss = float(plackett_luce(scores, [ranking(ranks)]))
        likelihoods.append(math.exp(-loss * (size - 1)))
        assert likelihoods[-1] == pytest.approx(sequential_choice(scores.tolist(), order), rel=1e-9)
    assert sum(likelihoods) == pytest.approx(1.0)


def test_plackett_luce_of_pairs_is_bradley_terry() -> None:
    rankings = [ranking((0, 1)), ranking((1, 0))]
    scores = torch.tensor([0.3, -1.0, 2.0, 0.1])
    assert float(plackett_luce(scores, rankings)) == pytest.approx(float(bradley_terry(scores, rankings)))


def test_plackett_luce_of_ties_is_breslows() -> None:
    """Tied responses are each chosen from all that are left, themselves included; the last place is no choice."""
    a, b, c, d = scores = [0.5, -0.2, 1.0, 0.0]

    def choice(chosen: float, *left: float) -> float:
        return math.log(sum(math.exp(s) for s in left)) - chosen

    first = (choice(a, a, b, c, d) + choice(b, a, b, c, d) + choice(c, c, d)) / 3
    assert float(plackett_luce(torch.tensor(scores), [ranking((0, 0, 1, 2))])) == pytest.approx(first)
    assert float(plackett_luce(torch.tensor(scores), [ranking((0, 1, 1, 1))])) == pytest.approx(choice(a, a, b, c, d))
    assert float(plackett_luce(torch.tensor(scores), [ranking((3, 3, 3, 3))])) == 0
    # ranks need not be consecutive numbers
    assert float(plackett_luce(torch.tensor(scores), [ranking((0, 0, 5, 9))])) == pytest.approx(first)
    one, two = torch.tensor(scores), torch.tensor([1.0, 3.0])
    separate = float(plackett_luce(one, [ranking((0, 0, 1, 2))])) + float(plackett_luce(two, [ranking((1, 0))]))
    both = plackett_luce(torch.cat([one, two]), [ranking((0, 0, 1, 2)), ranking((1, 0))])
    assert float(both) == pytest.approx(separate)


@pytest.mark.parametrize("loss", [bradley_terry, plackett_luce])
def test_a_common_shift_of_a_prompt_changes_nothing(loss) -> None:  # type: ignore[no-untyped-def]
    rankings = [ranking((0, 2, 1)), ranking((1, 0))]
    scores = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifted = scores + torch.tensor([7.0, 7.0, 7.0, -3.0, -3.0])
    assert float(loss(shifted, rankings)) == pytest.approx(float(loss(scores, rankings)))


# Figures


@given(scored_rankings())
@property_test
def test_pair_figures_by_brute_force(sample: tuple[Tensor, list[Ranking]]) -> None:
    """Accuracy with ties as halves; the standard error clustered by prompt; expected calibration error in ten bins."""
    scores, rankings = sample
    scores = scores.round(decimals=1)  # some ties
    of_prompt: dict[str, list[float]] = {}
    for own, r in by_prompt(scores, rankings):
        for better, worse in preferred_pairs(r):
            of_prompt.setdefault(r.prompt.id, []).append(own[better] - own[worse])
    clusters = list(of_prompt.values())
    margins = [m for cluster in clusters for m in cluster]
    if not margins:
        return
    right = [[1.0 if m > 0 else 0.5 if m == 0 else 0.0 for m in cluster] for cluster in clusters]
    accuracy = sum(sum(cluster) for cluster in right) / len(margins)
    variance = sum(sum(x - accuracy for x in cluster) ** 2 for cluster in right) / len(margins) ** 2
    groups = len(clusters)
    figures = pair_figures(scores, rankings)
    assert (figures.pairs, figures.prompts) == (len(margins), groups)
    assert figures.accuracy == pytest.approx(accuracy)
    expected = math.sqrt(groups / (groups - 1) * variance) if groups > 1 else math.nan
    assert figures.accuracy_stderr == pytest.approx(expected, abs=1e-12, nan_ok=True)

    bins: dict[int, list[tuple[float, float]]] = {}
    for m in margins:
        confidence = 1 / (1 + math.exp(-abs(m)))
        bins.setdefault(min(int((confidence - 0.5) / 0.05), 9), []).append((confidence, 0.5 * (np.sign(m) + 1)))
    error = sum(abs(sum(c for c, _ in b) - sum(r for _, r in b)) for b in bins.values()) / len(margins)
    assert figures.calibration_error == pytest.approx(error, abs=1e-9)


def test_a_tie_of_scores_counts_half() -> None:
    figures = pair_figures(torch.tensor([1.0, 1.0, 2.0, 0.0, 0.0, 2.0]), [ranking((0, 1))] * 3)
    assert (figures.accuracy, figures.pairs) == (0.5, 3)
    assert pair_figures(torch.zeros(4), [ranking((0, 1, 2, 3))]).accuracy == 0.5


def simulated(scale: float, prompts: int = 20000) -> tuple[Tensor, list[Ranking]]:
    """Pairs whose winner is drawn with probability sigmoid(margin); the reported scores are `scale` times the true."""
    rng = np.random.default_rng(0)
    utilities = rng.normal(size=(prompts, 2))
    first_wins = rng.random(prompts) < 1 / (1 + np.exp(utilities[:, 1] - utilities[:, 0]))
    rankings = [ranking((0, 1) if wins else (1, 0), name=f"prompt {i}") for i, wins in enumerate(first_wins)]
    return torch.tensor(scale * utilities.reshape(-1)), rankings


def test_true_probabilities_are_calibrated_and_exaggerated_ones_are_not() -> None:
    honest, boastful, timid = (pair_figures(*simulated(scale)) for scale in (1.0, 3.0, 0.3))
    assert honest.calibration_error < 0.015
    assert boastful.calibration_error > 0.1
    assert timid.calibration_error > 0.1
    assert honest.accuracy == boastful.accuracy == timid.accuracy
    # E[sigmoid(|margin|)] for margins of N(0, 2)
    z = np.random.default_rng(1).normal(size=10**6) * math.sqrt(2)
    assert honest.accuracy == pytest.approx(
        float(np.mean(1 / (1 + np.exp(-np.abs(z))))), abs=3 * honest.accuracy_stderr
    )


def test_the_standard_error_counts_prompts_not_pairs() -> None:
    """Six pairs of one ranking that are right or wrong together weigh like one: checked against a simulation of it."""
    rng = np.random.default_rng(0)
    ranks = (0, 1, 2, 3)
    up, down = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 2.0, 3.0])

    def draw() -> tuple[float, float]:
        scores = torch.cat([up if rng.random() < 0.7 else down for _ in range(50)])
        figures = pair_figures(scores, [ranking(ranks, name=f"prompt {i}") for i in range(50)])
        return figures.accuracy, figures.accuracy_stderr

    accuracies, errors = np.array([draw() for _ in range(300)]).T
    assert float(np.mean(errors)) == pytest.approx(float(np.std(accuracies)), rel=0.15)
    assert float(np.mean(errors)) == pytest.approx(math.sqrt(0.7 * 0.3 / 50), rel=0.05)


class Known(Annotator):
    """Prefers what comes first in the alphabet; indifferent between x and y, up to the last bit."""

    def preference(
        self, prompt: Prompt, first: str, second: str, *, finished: tuple[bool, bool] = (True, True)
    ) -> float | None:
        return (
            None if "?" in first + second else 0.1 * 3 + 0.2 if {first, second} == {"x", "y"} else float(first < second)
        )


def test_annotator_ceiling() -> None:
    right, wrong, indifferent = ranking((0, 1), ("a", "b")), ranking((0, 1), ("b", "a")), ranking((0, 1), ("x", "y"))
    assert annotator_ceiling(Known(), [right, right, wrong, indifferent]) == 0.625
    assert annotator_ceiling(Known(), [right, ranking((0, 1), ("?", "a"))]) is None
    assert annotator_ceiling(Known(), [ranking((0, 0))]) is None


def test_pairs_that_are_written_four_times_make_nothing_surer() -> None:
    rankings = [ranking((0, 1), name=f"prompt {i}") for i in range(8)]
    scores = torch.tensor([1.0, 0.0] * 5 + [0.0, 1.0] * 3)
    once, often = pair_figures(scores, rankings), pair_figures(scores.repeat(4), rankings * 4)
    assert often.accuracy_stderr == pytest.approx(once.accuracy_stderr) == pytest.approx(math.sqrt(15 / 64 / 7))


def test_one_held_out_pair_has_no_standard_error() -> None:
    figures = pair_figures(torch.tensor([1.0, 0.0]), [ranking((0, 1))])
    assert figures.accuracy == 1 and math.isnan(figures.accuracy_stderr)
    metrics = {"held_out_accuracy": 1.0, "held_out_accuracy_stderr": math.nan, "held_out_prompts": 1.0}
    assert summary(metrics | {"calibration_error": 0.1}) == "held-out accuracy 1.000, calibration error 0.100"
