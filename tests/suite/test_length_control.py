"""The length-controlled win rate against closed forms, planted effects and a reference fitted by scipy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from alignbench_suite.helpfulness.length_control import FEWEST, PRIOR_SD, enough, length_controlled, widened
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit


def reference(wins, longer, example, importance=None):
    """The penalised likelihood as written, fitted by BFGS: (theta, phi). `importance` [examples] weighs whole examples, each
    with its share of the penalty."""
    y, d, e = (np.asarray(x, float) for x in (wins, longer, example))
    e = e.astype(int)
    n = e.max() + 1
    importance = np.ones(n) if importance is None else importance

    def loss(beta):
        logits = beta[0] + beta[1] * np.tanh(d / d.std())
        each = -y * np.log(expit(logits)) - (1 - y) * np.log(expit(-logits))
        by_example = np.array([each[e == i].mean() for i in range(n)]) + beta[1] ** 2 / (2 * PRIOR_SD**2 * n)
        return importance @ by_example

    return minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x


def planted(n, theta, phi, *, mean=20.0, sd=20.0, responses=1, seed=0):
    """wins, longer, example: preferences drawn from the model itself."""
    rng = np.random.default_rng(seed)
    longer = rng.normal(mean, sd, n * responses)
    wins = (rng.random(n * responses) < expit(theta + phi * np.tanh(longer / sd))).astype(float)
    return wins, longer, np.repeat(np.arange(n), responses)


def stderr(found):
    return found.values.std(ddof=1) / np.sqrt(len(found.values))


def test_the_fit_is_that_of_scipy() -> None:
    wins, longer, example = planted(40, 0.5, 1.5, responses=2)
    wins[::7] = 0.5
    keep = np.arange(len(wins)) != 3  # an example with one response beside those with two
    data = wins[keep], longer[keep], example[keep]
    found, (theta, phi) = length_controlled(*data), reference(*data)
    assert found.rate == pytest.approx(expit(theta), abs=1e-6)
    assert found.phi == pytest.approx(phi, abs=1e-5)
    assert found.values.mean() == pytest.approx(found.rate, abs=1e-12)


def test_values_are_the_influence_of_each_example() -> None:
    """The derivative of the rate by the weight of an example, times their number: by finite differences of the reference."""
    data = planted(12, 0.3, 1.0, responses=2, seed=3)
    found = length_controlled(*data)
    for i in (0, 5, 11):
        step = 1e-3 * (np.arange(12) == i)
        up, down = (expit(reference(*data, np.ones(12) + sign * step)[0]) for sign in (1, -1))
        assert found.values[i] - found.rate == pytest.approx(12 * (up - down) / 2e-3, abs=1e-3)


@pytest.mark.parametrize("difference", [0, 7])
def test_with_equal_differences_it_is_the_raw_win_rate_example_by_example(difference: int) -> None:
    wins, example = [1, 0, 1, 0.5, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3]
    found = length_controlled(wins, [difference] * 8, example)
    assert found.values == pytest.approx([0.5, 0.75, 0, 1])
    assert found.rate == pytest.approx(0.5625)
    assert found.phi == 0


def test_a_judge_of_length_alone_is_made_out() -> None:
    rates, shorter = [], []
    for seed in range(20):
        longer = np.round(np.random.default_rng(seed).normal(30, 20, 400))
        wins = 0.5 * ((longer > 0) + 1.0 * (longer >= 0))
        assert wins.mean() > 0.9
        rates.append(length_controlled(wins, longer, range(400)).rate)
        shorter.append(length_controlled(1 - wins, longer, range(400)).rate)  # and one that likes brevity
    assert np.mean(rates) == pytest.approx(0.5, abs=0.08)
    assert np.mean(shorter) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(("theta", "phi"), [(0.8, 2.0), (0.8, -1.0), (0.0, 2.0), (-1.0, 1.0), (0.8, 0.0)])
def test_planted_effects_are_told_apart(theta: float, phi: float) -> None:
    wins, longer, example = planted(4000, theta, phi)
    found = length_controlled(wins, longer, example)
    assert abs(found.rate - expit(theta)) < 4 * stderr(found) < 0.06
    assert found.phi == pytest.approx(phi, abs=0.3)
    if phi:
        assert abs(wins.mean() - expit(theta)) > 0.07, "the raw win rate is far from it"


@pytest.mark.parametrize("responses", [1, 3])
def test_the_standard_error_is_that_of_repeated_fits(responses: int) -> None:
    fits = [length_controlled(*planted(150, 0.5, 1.5, responses=responses, seed=seed)) for seed in range(200)]
    truth, deviation = expit(0.5), np.std([f.rate for f in fits])
    assert np.mean([stderr(f) for f in fits]) == pytest.approx(deviation, rel=0.15)
    assert np.mean([abs(f.rate - truth) < 1.96 * stderr(f) for f in fits]) > 0.9


@pytest.mark.parametrize("win", [0.0, 0.5, 1.0, 0.3])
def test_one_outcome_throughout_is_the_rate(win: float) -> None:
    found = length_controlled([win] * 5, [3, -2, 0, 9, 100], [0, 0, 1, 2, 3])
    assert (found.rate, found.phi) == (win, 0)
    assert found.values.tolist() == [win] * 4


def test_of_nothing_nothing_is_known() -> None:
    assert len(length_controlled([], [], []).values) == 0
    (value,) = length_controlled([1.0], [5], [0]).values
    assert value == 1


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-(10**6), 10**6), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_it_is_finite_and_fair_whatever_is_compared(rows: list[tuple[float, int, bool]]) -> None:
    wins, longer, new = (np.array(column, float) for column in zip(*rows, strict=True))
    example = (np.cumsum(new) - new[0]).astype(int)
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        found = length_controlled(wins, longer, example)
        swapped = length_controlled(1 - wins, -longer, example)
    assert 0 <= found.rate <= 1 and np.isfinite(found.values).all()
    assert found.values.mean() == pytest.approx(found.rate, abs=1e-9)
    assert swapped.rate == pytest.approx(1 - found.rate, abs=1e-6), "who comes first does not matter"


def test_too_few_prompts_or_outcomes_have_no_rate() -> None:
    half = [0.0, 1.0] * (FEWEST // 2)
    assert enough(half, range(FEWEST)) and not enough(half[1:], range(FEWEST - 1))
    assert not enough(half, np.repeat(range(FEWEST // 2), 2).tolist()), "two responses are one prompt"
    assert not enough([1.0] * 91 + [0.0] * 9, range(100)) and enough([1.0] * 90 + [0.0] * 10, range(100))
    assert enough([0.5] * FEWEST, range(FEWEST)), "ties are half of each"
    assert not enough([], [])


def test_a_judge_of_length_alone_at_few_prompts_is_held_by_the_wider_interval() -> None:
    """Mostly; and more often than by the sandwich estimate alone."""
    held, narrow = [], []
    for seed in range(30):
        longer = np.round(np.random.default_rng(seed).normal(12, 20, FEWEST))
        wins = 0.5 * ((longer > 0) + 1.0 * (longer >= 0))
        found = length_controlled(wins, longer, range(FEWEST))
        values = widened(found, wins, longer, range(FEWEST), [str(i) for i in range(FEWEST)])
        assert values.mean() == pytest.approx(found.rate, abs=1e-9)
        for kept, spread in ((narrow, found.values), (held, values)):
            kept.append(abs(found.rate - 0.5) <= 2.01 * spread.std(ddof=1) / np.sqrt(FEWEST))
    assert np.mean(held) >= 0.9 and np.mean(held) > np.mean(narrow)


def test_copies_in_a_cluster_make_the_wider_interval_no_shorter() -> None:
    wins, longer, _ = planted(60, 0.5, 1.5)
    once = widened(length_controlled(wins, longer, range(60)), wins, longer, range(60), [str(i) for i in range(60)])
    wins, longer, cluster = np.repeat(wins, 3), np.repeat(longer, 3), [str(i // 3) for i in range(180)]
    often = widened(length_controlled(wins, longer, range(180)), wins, longer, range(180), cluster)
    assert often.std() == pytest.approx(once.std(), rel=0.1)
