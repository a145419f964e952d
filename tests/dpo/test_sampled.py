"""Online IPO, XPO and Nash-MD: the optima that they claim, who draws their responses, and what an update reports."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from alignbench_dpo.optimum import identity_optimum
from alignbench_dpo.pairs import Side
from alignbench_dpo.sampled.config import NashMDConfig, OnlineIPOConfig, SampledConfig, XPOConfig
from alignbench_dpo.sampled.equilibrium import Paths, equilibrium
from alignbench_dpo.sampled.nash_md import NashMD, nash_md_loss
from alignbench_dpo.sampled.online_ipo import OnlineIPO
from alignbench_dpo.sampled.xpo import XPO
from torch import Tensor

from alignbench import (
    POLICY,
    REFERENCE,
    ExactProblem,
    PolicyOptimizer,
    ScoredRollout,
    Seeds,
    Source,
    UserError,
    functional,
)
from alignbench.pipeline.experience import Asked, sampled
from alignbench.testing.tabular import TabularPolicy
from alignbench.testing.world import World, WorldReward
from tests import tiny

SOFT: dict[str, Any] = {"labels": "soft", "missing_eos": "keep"}


@pytest.fixture(scope="module")
def world() -> World:
    return World(3)


def wins_of(problem: ExactProblem) -> Tensor:
    return torch.sigmoid(problem.rewards[:, :, None] - problem.rewards[:, None, :])


def drawn_by(policy: Tensor, problem: ExactProblem, share: float) -> Tensor:
    return Paths.of(problem.completions).mixed(policy.log(), problem.reference.log(), share).exp()


# The mixture


@pytest.mark.parametrize("share", [0.3, 0.125])
def test_mixtures_of_distributions_are_those_of_tables(world: World, share: float) -> None:
    """What is computed from whole responses is what a table of next tokens draws; of whole responses the mixture would be another."""
    policy = world.policy(moved=1.0)
    found = drawn_by(world.distribution(policy), world.problem, share)
    everything = world.everything()
    table = policy.drawn_logprobs(everything, Source(POLICY, share), 1.0).double().sum(1).exp().reshape(found.shape)
    torch.testing.assert_close(found, table, atol=1e-6, rtol=0)
    one, other = world.distribution(policy).log(), world.problem.reference.log()
    whole = torch.softmax((1 - share) * one + share * other, 1)
    assert float(functional.total_variation(found, whole).min()) > 1e-3


# The optima


@pytest.mark.parametrize("tau", [0.5, 0.05])
def test_equilibrium_loses_to_nobody(world: World, tau: float) -> None:
    """In the regularised game nobody earns more than half against it, and it alone: its neighbours lose to it."""
    problem, wins = world.problem, wins_of(world.problem)
    nash = equilibrium(problem, wins, tau=tau)
    assert nash is not None

    def earns(one: Tensor, other: Tensor) -> Tensor:
        kl = functional.kl_divergence(one, problem.reference) - functional.kl_divergence(other, problem.reference)
        return torch.einsum("xy,xyz,xz->x", one, wins, other) - tau * kl

    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(20, *nash.shape, generator=rng, dtype=torch.float64)
    others = [torch.softmax(nash.log() + size * each, 1) for size in (0.1, 3.0) for each in noise]
    for other in [*others, problem.reference, identity_optimum(problem, tau)]:
        assert bool((earns(nash, other) > 0.5).all())


def test_equilibrium_is_where_mirror_descent_comes_to(world: World) -> None:
    """The tabular algorithm of arXiv 2312.00886, with the mixture of whole responses that its small step asks for."""
    problem, wins, tau, step = world.problem, wins_of(world.problem), 0.2, 0.02
    policy = problem.reference
    for _ in range(3000):
        mixed = torch.softmax((1 - step * tau) * policy.log() + step * tau * problem.reference.log(), 1)
        policy = torch.softmax(mixed.log() + step * torch.einsum("xyz,xz->xy", wins, mixed), 1)
    nash = equilibrium(problem, wins, tau=tau)
    assert nash is not None
    assert float(functional.total_variation(policy, nash).max()) < 5e-3
    assert float(functional.total_variation(identity_optimum(problem, tau), nash).max()) > 4e-2


def test_against_the_reference_it_is_ipos_optimum(world: World) -> None:
    found = equilibrium(world.problem, wins_of(world.problem), tau=0.2, share=1.0)
    torch.testing.assert_close(found, identity_optimum(world.problem, 0.2))


def gradient(loss: Tensor, logits: Tensor) -> float:
    (found,) = torch.autograd.grad(loss, logits)
    return float(found.abs().max())


def expected_loss(kind: str, config: Any, problem: ExactProblem, logits: Tensor) -> Tensor:
    """In the mean over everything that is drawn, which gets no gradient; of a free table of responses."""
    logprobs = torch.log_softmax(logits, 1)
    ratio, policy = logprobs - problem.reference.log(), logprobs.detach().exp()
    gaps = problem.rewards[:, :, None] - problem.rewards[:, None, :]
    wins = torch.sigmoid(gaps) if config.labels == "soft" else (gaps > 0).double() + 0.5 * (gaps == 0).double()
    h = ratio[:, :, None] - ratio[:, None, :]
    if kind == "xpo":
        likely = torch.sigmoid(config.beta * h)
        pairs = policy[:, :, None] * problem.reference[:, None, :]
        cost = -(wins * likely.log() + (1 - wins) * (1 - likely).log()) + config.alpha * logprobs[:, None, :]
        return (pairs * cost).sum()
    other = drawn_by(policy, problem, config.reference_share)
    if kind == "online_ipo":
        return (other[:, :, None] * other[:, None, :] * (h - (2 * wins - 1) / (2 * config.tau)) ** 2).sum()
    pairs = policy[:, :, None] * other[:, None, :]
    return -(pairs * (wins - 0.5 - config.tau * ratio.detach()[:, :, None]) * logprobs[:, :, None]).sum()


CLAIMS: dict[str, tuple[str, Any, Any]] = {
    "online_ipo": ("online_ipo", OnlineIPO, OnlineIPOConfig(tau=0.2, **SOFT)),
    "online_ipo hard": ("online_ipo", OnlineIPO, OnlineIPOConfig(tau=0.3, missing_eos="keep")),
    "ipo_md": ("online_ipo", OnlineIPO, OnlineIPOConfig(tau=0.2, reference_share=0.4, **SOFT)),
    "nash_md": ("nash_md", NashMD, NashMDConfig(tau=0.2, **SOFT)),
    "nash_md hard": ("nash_md", NashMD, NashMDConfig(tau=0.3, reference_share=0.5, missing_eos="keep")),
    "xpo": ("xpo", XPO, XPOConfig(beta=0.7, alpha=0.0, **SOFT)),
    "xpo optimistic": ("xpo", XPO, XPOConfig(beta=1.0, alpha=0.02, **SOFT)),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_optimum_is_where_the_expected_gradient_is_zero(world: World, claim: str) -> None:
    kind, algorithm, config = CLAIMS[claim]
    optimum = algorithm.optimum(config, world.problem)
    assert optimum is not None and optimum.dtype == torch.float64
    torch.testing.assert_close(optimum.sum(1), torch.ones(2).double())
    slopes = []
    for at in (optimum, world.problem.reference):
        logits = at.log().clone().requires_grad_()
        slopes.append(gradient(expected_loss(kind, config, world.problem, logits), logits))
    assert slopes[0] < 1e-8 < 1e-3 < slopes[1]


@pytest.mark.parametrize(
    ("algorithm", "config"),
    [
        (XPO, XPOConfig(missing_eos="keep")),
        (XPO, XPOConfig(temperature=0.5, **SOFT)),
        (XPO, XPOConfig(beta=1.0, alpha=50.0, **SOFT)),
        (OnlineIPO, OnlineIPOConfig(temperature=0.5, **SOFT)),
        (NashMD, NashMDConfig(temperature=0.5, **SOFT)),
    ],
)
def test_no_optimum_is_claimed_where_theory_gives_none(
    world: World, algorithm: type[PolicyOptimizer[Any]], config: object
) -> None:
    assert algorithm.optimum(config, world.problem) is None


def test_a_kl_by_tokens_alone_leads_elsewhere(world: World) -> None:
    """The gradient that takes each token's log-ratio times that token's own log pi is not 0 at the optimum of the whole response's."""
    policy, problem = world.policy(), world.problem
    config = NashMDConfig(tau=0.2, reference_share=0.0, **SOFT)
    optimum = NashMD.optimum(config, problem)
    assert optimum is not None
    set_to(policy, world, optimum)
    everything, wins = world.everything(), torch.einsum("xyz,xz->xy", wins_of(problem), optimum).flatten()
    ref = policy.logprobs(everything, role=REFERENCE).logprobs
    slopes = []
    for tokens in (False, True):
        logprobs = policy.logprobs(everything).logprobs
        if tokens:
            loss = ((0.5 - wins) * logprobs.sum(1)) + config.tau * ((logprobs.detach() - ref) * logprobs).sum(1)
        else:
            loss = nash_md_loss(logprobs.sum(1), ref.sum(1), wins, config.tau)
        slopes.append(gradient((optimum.flatten() * loss).sum(), policy.logits))
    assert slopes[0] < 1e-5 < 1e-3 < slopes[1]


def set_to(policy: TabularPolicy, world: World, distribution: Tensor) -> None:
    """Gives a table the conditionals of a distribution over responses."""
    everything = world.everything()
    prompts, states = policy.states(everything)
    inside, actions = everything.response_mask.bool(), policy.actions(everything)
    mass = torch.full(policy.logits.shape, 1e-30, dtype=torch.float64)
    for t in range(inside.shape[1]):
        kept = inside[:, t]
        where = prompts[kept], states[kept, t], actions[kept, t]
        mass.index_put_(where, distribution.flatten()[kept], accumulate=True)
    with torch.no_grad():
        policy.logits.copy_(mass.log())


@pytest.mark.parametrize("alpha", [0.5, 0.0])
def test_optimism_is_about_the_references_responses(alpha: float) -> None:
    """The loss and its gradient in float64, by the formula that TRL's trainer has too; of the size that the default has, the kit sees
    nothing of it."""
    config = XPOConfig(beta=0.7, alpha=alpha)
    algorithm = XPO(config, policy=tiny.scratch(), updates=1, seeds=Seeds(0))
    rng = torch.Generator().manual_seed(0)
    own, ref, base_own, base_ref = torch.randn(4, 6, generator=rng, dtype=torch.float64)
    wins = torch.tensor([1.0, 0.0, 0.5, 0.3, 0.9, 1.0], dtype=torch.float64)
    tokens, losses = torch.full((6,), 3), []
    for stated in (False, True):
        mine, theirs = own.clone().requires_grad_(), ref.clone().requires_grad_()
        if stated:
            h = config.beta * ((mine - base_own) - (theirs - base_ref))
            loss = wins * torch.log1p(torch.exp(-h)) + (1 - wins) * torch.log1p(torch.exp(h)) + alpha * theirs
        else:
            loss = algorithm._judge(Side(mine, tokens, base_own), Side(theirs, tokens, base_ref), wins).loss
        loss.sum().backward()
        assert mine.grad is not None and theirs.grad is not None
        losses.append(torch.stack([loss.detach(), mine.grad, theirs.grad]))
    torch.testing.assert_close(losses[0], losses[1])


# Who draws


@pytest.mark.parametrize(
    ("config", "sources"),
    [
        (OnlineIPOConfig(), (Source(),)),
        (OnlineIPOConfig(reference_share=0.3), (Source(POLICY, 0.3),)),
        (OnlineIPOConfig(reference_share=1.0), (Source(REFERENCE),)),
        (XPOConfig(), (Source(), Source(REFERENCE))),
        (NashMDConfig(), (Source(), Source(POLICY, 0.125))),
        (NashMDConfig(reference_share=1.0), (Source(), Source(REFERENCE))),
    ],
)
def test_sources(config: SampledConfig, sources: tuple[Source, ...]) -> None:
    assert config.sources == sources


@pytest.mark.parametrize("kind", [OnlineIPOConfig, XPOConfig, NashMDConfig])
def test_an_odd_group_is_refused(kind: type[SampledConfig]) -> None:
    with pytest.raises(UserError, match="odd|multiple of 2"):
        kind(batch_size=6, samples_per_prompt=3)


# Updates


def rollout(policy: Any, config: SampledConfig) -> ScoredRollout:
    found = sampled(policy, Asked(tiny.PROMPTS, torch.Generator().manual_seed(0)), config)
    scores = torch.randn(len(found.samples), generator=torch.Generator().manual_seed(1))
    scores[1] = scores[0]
    return ScoredRollout(found, scores)


@pytest.mark.parametrize("claim", ["online_ipo", "ipo_md", "nash_md", "xpo"])
def test_figures_are_of_the_policys_own_responses(claim: str) -> None:
    _, algorithm, config = CLAIMS[claim]
    config = dataclasses.replace(config, batch_size=24, samples_per_prompt=4, micro_batch_size=5)
    policy = tiny.scratch()
    policy.freeze_reference()
    tiny.move(policy, scale=0.2)
    batch = rollout(policy, config)
    own = torch.arange(24) % 2 == 0 if len(config.sources) > 1 else torch.ones(24, dtype=torch.bool)
    with torch.no_grad():
        mine, ref = (
            functional.summed_logprobs(policy, batch.rollout.samples.sequences, role=r) for r in (POLICY, REFERENCE)
        )
    report = algorithm(config, policy=policy, updates=1, seeds=Seeds(0)).update(batch)
    assert report.optimizer_steps == 1
    assert report.metrics["reward"] == pytest.approx(float(batch.scores[own].mean()), abs=1e-6)
    name = "log_ratio" if claim == "ipo_md" else "kl"
    assert report.metrics[name] == pytest.approx(float((mine - ref)[own].mean()), abs=1e-5)
    assert ("kl" in report.metrics) == (claim != "ipo_md")
    assert report.metrics["ties"] == 1.0
    if claim == "xpo":
        assert report.metrics["log_ratio_reference"] == pytest.approx(float((mine - ref)[~own].mean()), abs=1e-5)


def test_responses_of_several_sources_come_in_turn(world: World) -> None:
    """Policy and reference are as far apart as can be told from single responses."""
    policy = world.policy()
    with torch.no_grad():
        policy.logits[:, :, 0] += 30.0  # it ends at once
    config = XPOConfig(batch_size=8, samples_per_prompt=4)
    batch = world.rollout(policy, 8, torch.Generator().manual_seed(0), n=4, sources=config.sources)
    lengths = batch.rollout.samples.sequences.response_mask.sum(1)
    assert lengths[0::2].tolist() == [1] * 4 and int(lengths[1::2].max()) > 1
    assert [p.id for p in batch.rollout.samples.prompts] == ["p0"] * 4 + ["p1"] * 4
    assert torch.equal(batch.scores, WorldReward(world).score(batch.rollout.samples))
    wanted = torch.stack([policy.drawn_logprobs(batch.rollout.samples.sequences, s, 1.0) for s in config.sources])
    turn = torch.arange(8)
    torch.testing.assert_close(batch.rollout.logprobs, wanted[turn % 2, turn])
