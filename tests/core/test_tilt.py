"""The frontier by tilting: against enumeration where every response is written down, and against closed forms."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alignbench import ExactProblem, Message, Prompt, functional
from alignbench.evaluation import tilt
from alignbench.evaluation.frontier import Frontier

BETAS = [0.1, 0.5, 1.0, 4.0]


def problem(prompts: int = 4, responses: int = 50) -> ExactProblem:
    rng = torch.Generator().manual_seed(0)
    logits, rewards = torch.randn(2, prompts, responses, generator=rng, dtype=torch.double)
    return ExactProblem(tuple((i,) for i in range(responses)), logits.softmax(1), rewards)


def drawn(known: ExactProblem, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Responses sampled from the reference [P, N], and their rewards."""
    rows = known.reference.multinomial(n, replacement=True, generator=torch.Generator().manual_seed(seed))
    return rows, known.rewards.gather(1, rows)


@pytest.mark.parametrize("beta", BETAS)
def test_fed_with_all_probabilities_it_is_the_optimum(beta: float) -> None:
    known = problem()
    best = functional.kl_optimum(known.reference, known.rewards, beta)
    found = tilt.tilt(known.rewards, beta, known.reference)
    torch.testing.assert_close(found.weights, best, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.kl, functional.kl_divergence(best, known.reference), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.expected(known.rewards), (best * known.rewards).sum(1), rtol=0, atol=1e-9)
    objective = found.expected(known.rewards) - beta * found.kl
    torch.testing.assert_close(objective, beta * found.log_z, rtol=0, atol=1e-9)


@pytest.mark.parametrize("beta", BETAS[1:])
def test_estimates_from_samples_converge(beta: float) -> None:
    known = problem()
    exact = tilt.tilt(known.rewards, beta, known.reference)
    errors = []
    for n in (100, 10_000, 1_000_000):
        found = tilt.tilt(drawn(known, n)[1], beta)
        errors.append(float(((found.log_z - exact.log_z).abs() + (found.kl - exact.kl).abs()).mean()))
    assert errors[2] < 5e-3
    assert errors[0] > errors[1] > errors[2]


def test_effective_samples() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -1e9, -1e9]], dtype=torch.double)
    found = tilt.tilt(scores, 1.0)
    assert found.ess.tolist() == pytest.approx([4.0, 1 / (0.75**2 + 0.25**2)])
    assert tilt.effective(found) == pytest.approx(2 / (1 / 4 + 0.625))
    assert found.kl.tolist() == pytest.approx([0.0, 0.75 * math.log(3)], abs=1e-9)


def test_without_a_pull_it_is_the_model_itself() -> None:
    scores = drawn(problem(), 40)[1]
    found = tilt.tilt(scores, math.inf)
    assert found.ess.tolist() == pytest.approx([40.0] * 4)
    assert found.kl.abs().max() < 1e-12
    torch.testing.assert_close(found.expected(scores), scores.mean(1))


def test_what_does_not_apply_is_left_out_of_a_mean() -> None:
    found = tilt.tilt(torch.zeros(2, 3), 1.0)
    column = torch.tensor([[1.0, math.nan, 3.0], [math.nan] * 3])
    first, second = found.expected(column).tolist()
    assert first == pytest.approx(2.0)
    assert math.isnan(second)


def test_reward_and_kl_rise_together_and_no_policy_is_above() -> None:
    known = problem()
    points = [tilt.tilt(known.rewards, beta, known.reference) for beta in (8, 4, 2, 1, 0.5, 0.2, 0.1)]
    kls = [float(p.kl.mean()) for p in points]
    rewards = [float(p.expected(known.rewards).mean()) for p in points]
    assert kls == sorted(kls)
    assert rewards == sorted(rewards)
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        shift = 0.7 * torch.randn(known.reference.shape, generator=rng, dtype=torch.double)
        other = (known.reference.log() + shift + known.rewards / 2).softmax(1)
        kl = functional.kl_divergence(other, known.reference)
        best = tilt.at_kl(known.rewards, float(kl.mean()), known.reference)
        assert best is not None
        assert float(best.kl.mean()) == pytest.approx(float(kl.mean()), rel=1e-9)
        gap = best.expected(known.rewards).mean() - (other * known.rewards).sum(1).mean()
        # beta KL(pi || pi_beta): how far below any policy stands, by the closed form.
        assert float(gap) == pytest.approx(best.beta * float(functional.kl_divergence(other, best.weights).mean()))
        assert gap > 0


def test_shortfall_is_nothing_on_the_frontier_and_what_was_lost_below_it() -> None:
    known = problem()
    scores = drawn(known, 20_000)[1]
    best = tilt.tilt(known.rewards, 0.7, known.reference)
    proxy, kl = best.expected(known.rewards), best.kl
    gap = tilt.shortfall(scores, proxy, kl)
    assert gap is not None
    assert float(gap.mean()) == pytest.approx(0.0, abs=0.02)
    lower = tilt.shortfall(scores, proxy - 0.3, kl)
    assert lower is not None
    assert float(lower.mean()) == pytest.approx(0.3, abs=0.02)


def test_beyond_its_reach_it_says_nothing() -> None:
    scores = drawn(problem(), 200)[1]
    far = tilt.reach(scores)
    assert tilt.effective(far) == pytest.approx(tilt.FEWEST, rel=1e-3)
    limit = float(far.kl.mean())
    assert 0 < limit < math.log(200 / tilt.FEWEST)
    r = torch.zeros(4)
    assert tilt.shortfall(scores, r, torch.full((4,), 0.99 * limit)) is not None
    for kl in (1.01 * limit, 0.0, -0.1):
        assert tilt.shortfall(scores, r, torch.full((4,), kl)) is None
    few = drawn(problem(), int(tilt.FEWEST))[1]
    assert float(tilt.reach(few).kl.mean()) == 0.0
    assert tilt.shortfall(torch.zeros(4, 200), r, torch.full((4,), 0.1)) is None, "equal rewards have no frontier"


def test_a_frontier_is_written_and_read_back(tmp_path: Path) -> None:
    _, scores = drawn(problem(), 400)
    prompts = tuple(Prompt(f"p{i}", (Message("user", "?"),), cluster=f"c{i}") for i in range(4))
    agrees = (scores > scores.median()).double()
    agrees[1:] = math.nan  # of those prompts no user states a wrong opinion
    made = Frontier(prompts, scores, -scores, agrees)
    made.save(tmp_path)
    found = Frontier.load(tmp_path, prompts)
    assert torch.equal(found.scores, scores)
    points = list(found.curve())
    assert [points[0][name] for name in ("beta", "kl")] == [None, pytest.approx(0.0)]
    for one, other in itertools.pairwise(points):
        assert one["kl"] < other["kl"]
        assert one["proxy"]["value"] < other["proxy"]["value"]
        assert one["gold"]["value"] > other["gold"]["value"]
        assert 0 <= one["agreement"]["value"] <= other["agreement"]["value"] <= 1
    assert points[0]["agreement"]["value"] == pytest.approx(float(agrees[0].mean()))
    nobody = dataclasses.replace(made, agrees=torch.full_like(scores, math.nan))
    assert "agreement" not in next(nobody.curve())
    assert points[-1]["effective_samples"] == pytest.approx(tilt.FEWEST, rel=1e-3)
    assert all(p["proxy"]["low"] < p["proxy"]["value"] < p["proxy"]["high"] for p in points)
    assert made.shortfall({"p0": 1.0, "elsewhere": 2.0}, {"p0": 0.2}).keys() == {"p0"}
    assert made.shortfall({}, {}) == {}
