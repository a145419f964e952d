"""Against what others published: the optimum that the script compares with, and that IPO gets there where DPO does not."""

from __future__ import annotations

import math

import pytest

from tests.results.test_committed import script

TAUS = [0.1, 0.5, 1.0]


@pytest.mark.parametrize("tau", TAUS)
def test_the_optimum_is_that_of_the_paper(tau: float) -> None:
    two, order, never_best = script("published").BANDITS
    assert two.optimum(tau)[0] == pytest.approx(1 / (1 + math.exp(-1 / (2 * tau))), abs=1e-9)
    best, middle, worst = order.optimum(tau)
    assert math.log(best / middle) == pytest.approx(1 / (3 * tau)) == pytest.approx(math.log(middle / worst))
    one, other, never = never_best.optimum(tau)
    assert one == pytest.approx(other) and 0 < never < one


@pytest.mark.parametrize("number", [0, 1, 2])
def test_ipo_stays_where_dpo_is_certain(number: int) -> None:
    published = script("published")
    bandit = published.BANDITS[number]
    assert published.trained("ipo", {"tau": 1.0}, bandit, 1200) == pytest.approx(bandit.optimum(1.0), abs=0.01)
    # What is never preferred is all but gone, whatever beta asks.
    assert published.trained("dpo", {"beta": 1.0}, bandit, 1200)[-1] < 0.02
