"""The optima that the algorithms claim: minimisers of the population losses, and where training on a policy arrives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from alignbench_dpo import losses
from alignbench_dpo.aot import AOT
from alignbench_dpo.bco import BCO
from alignbench_dpo.config import (
    APOConfig,
    BCOConfig,
    CPOConfig,
    DPOConfig,
    EXOConfig,
    IPOConfig,
    KTOConfig,
    LengthNormalisedDPOConfig,
    OnlineDPOConfig,
    ORPOConfig,
    SimPOConfig,
    SPPOConfig,
    WPOConfig,
)
from alignbench_dpo.config_further import AOTConfig, IterativeDPOConfig, TDPOConfig
from alignbench_dpo.iterative import IterativeDPO
from alignbench_dpo.kto import KTO
from alignbench_dpo.offline import CPO, DPO, IPO, ORPO, SimPO
from alignbench_dpo.online import OnlineDPO
from alignbench_dpo.tdpo import TDPO
from alignbench_dpo.weighed import APO, EXO, SPPO, WPO, LengthNormalisedDPO
from torch import Tensor

from alignbench import REFERENCE, ExactProblem, PolicyOptimizer, PreferenceBatch, Sampling, ScoredRollout, Seeds
from alignbench.pipeline.experience import reference_logprobs
from tests import tiny
from tests.ppo.test_optimum import PROMPTS, RESPONSES, distribution, everything, total_variation

Loss = Callable[[Tensor, Tensor], Tensor]  # of margins and of P(first preferred), [X, Y, Y]


def problem(seed: int = 0, responses: int = 20) -> ExactProblem:
    rng = torch.Generator().manual_seed(seed)
    reference, rewards = torch.randn(2, 2, responses, generator=rng, dtype=torch.float64)
    return ExactProblem(tuple((i,) for i in range(responses)), torch.softmax(reference, 1), rewards)


def margins(logits: Tensor, exact: ExactProblem) -> Tensor:
    """[X, Y, Y]: log-ratio of the first response less that of the second."""
    ratio = torch.log_softmax(logits, 1) - exact.reference.log()
    return ratio[:, :, None] - ratio[:, None, :]


def minimise(loss: Loss, exact: ExactProblem, weights: Tensor) -> Tensor:
    """The distribution that minimises the mean loss over pairs that come with `weights` [X, Y, Y]."""
    prefer = torch.sigmoid(exact.rewards[:, :, None] - exact.rewards[:, None, :])
    logits = exact.reference.log().clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [logits], lr=1, max_iter=3000, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        total = (weights * loss(margins(logits, exact), prefer)).sum()
        total.backward()
        return total

    solver.step(closure)
    return torch.softmax(logits.detach(), 1)


def independent(exact: ExactProblem) -> Tensor:
    """Both responses drawn from the reference."""
    return exact.reference[:, :, None] * exact.reference[:, None, :]


def drawn(loss: Callable[[Tensor], Tensor]) -> Loss:
    """Hard labels in the mean over their draws: the first response is the chosen one with its probability."""
    return lambda h, p: p * loss(h) + (1 - p) * loss(-h)


CLAIMS = {
    "dpo": (DPO, DPOConfig(beta=0.7), drawn(lambda h: losses.dpo_loss(h, 0.7, loss="sigmoid"))),
    "dpo soft": (
        DPO,
        DPOConfig(beta=0.7, soft_labels=True),
        lambda h, p: losses.dpo_loss(h, 0.7, loss="sigmoid", probability=p),
    ),
    "dpo ipo": (DPO, DPOConfig(beta=0.2, loss="ipo"), drawn(lambda h: losses.dpo_loss(h, 0.2, loss="ipo"))),
    "ipo": (IPO, IPOConfig(tau=0.2), drawn(lambda h: losses.ipo_loss(h, 0.2))),
    "ipo soft": (IPO, IPOConfig(tau=0.2, soft_labels=True), lambda h, p: losses.ipo_loss(h, 0.2, p)),
    "online": (
        OnlineDPO,
        OnlineDPOConfig(beta=0.7, labels="soft", missing_eos="keep"),
        lambda h, p: losses.sigmoid_loss(h, 0.7, p),
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_optimum_minimises_the_population_loss(claim: str) -> None:
    algorithm, config, loss = CLAIMS[claim]
    exact = problem()
    optimum = algorithm.optimum(config, exact)
    assert optimum is not None and optimum.dtype == torch.float64
    torch.testing.assert_close(optimum.sum(1), torch.ones(2).double())
    torch.testing.assert_close(minimise(loss, exact, independent(exact)), optimum, atol=1e-6, rtol=0)
    assert float(total_variation(exact.reference, optimum)) > 0.1


# Losses of each response's own log-ratio or log-probability, of pairs of different responses

Ratios = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # of log-ratios and log-probabilities of both, [X, Y, Y]
LENGTHS = torch.arange(20).remainder(3) + 1
OWN: dict[str, tuple[Any, Any, Ratios]] = {
    "sppo": (SPPO, SPPOConfig(beta=0.2), lambda r, s, a, b: losses.sppo_loss(r, s, 0.2)),
    "ln_dpo": (
        LengthNormalisedDPO,
        LengthNormalisedDPOConfig(beta=0.7),
        lambda r, s, a, b: losses.sigmoid_loss(r / LENGTHS[:, None] - s / LENGTHS, 0.7),
    ),
    "exo": (EXO, EXOConfig(beta=0.7, soft_labels=True), lambda r, s, a, b: losses.exo_loss(r - s, 0.7, true_wins())),
    "cpo": (CPO, CPOConfig(beta=0.7, alpha=0.0), lambda r, s, a, b: losses.sigmoid_loss(a - b, 0.7)),
    "wpo": (
        WPO,
        WPOConfig(beta=0.7),
        lambda r, s, a, b: losses.on_policy_weight(a / LENGTHS[:, None], b / LENGTHS) * losses.sigmoid_loss(r - s, 0.7),
    ),
}


def true_wins() -> Tensor:
    rewards = problem().rewards
    return torch.sigmoid(rewards[:, :, None] - rewards[:, None, :])


@pytest.mark.parametrize("claim", OWN)
def test_optimum_minimises_the_population_loss_of_pairs_of_different_responses(claim: str) -> None:
    """The optimum's gradient is 0: of the loss in the mean over labels (with soft ones over both orders alike), by a table of logits."""
    algorithm, config, loss = OWN[claim]
    exact = dataclasses.replace(problem(), completions=tuple((i,) * int(n) for i, n in enumerate(LENGTHS)))
    optimum = algorithm.optimum(config, exact)
    assert optimum is not None and optimum.dtype == torch.float64
    torch.testing.assert_close(optimum.sum(1), torch.ones(2).double())
    assert float(total_variation(exact.reference, optimum)) > 0.1
    wins = torch.full_like(true_wins(), 0.5) if getattr(config, "soft_labels", False) else true_wins()
    drawn_pairs = independent(exact) * wins * (1 - torch.eye(20))

    def gradient(at: Tensor) -> float:
        logits = at.log().clone().requires_grad_()
        logprobs = torch.log_softmax(logits, 1)
        ratios = logprobs - exact.reference.log()
        both = [part for each in (ratios, logprobs) for part in (each[:, :, None], each[:, None, :])]
        (drawn_pairs * loss(*both)).sum().backward()
        assert logits.grad is not None
        return float(logits.grad.abs().max())

    assert gradient(optimum) < 1e-7 < 1e-3 < gradient(exact.reference)


def test_soft_labels_do_not_mind_which_pairs_come() -> None:
    """What online DPO rests on, whose own policy draws its pairs. IPO's squared loss does mind, so it claims nothing for
    best_worst."""
    exact = problem()
    skewed = torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 4
    for claim, equal in (("dpo soft", True), ("online", True), ("ipo soft", False)):
        algorithm, config, loss = CLAIMS[claim]
        found = minimise(loss, exact, skewed / skewed.sum())
        assert (total_variation(found, algorithm.optimum(config, exact)) < 1e-6) == equal
    assert IPO.optimum(IPOConfig(pairs="best_worst", soft_labels=True), exact) is None
    assert DPO.optimum(DPOConfig(pairs="best_worst", soft_labels=True), exact) is not None


def test_best_and_worst_of_a_ranking_with_hard_labels_are_further_apart() -> None:
    """Rankings of three by Plackett-Luce, which makes every pair Bradley-Terry: the first against the last is not."""
    exact = problem(responses=6)
    worth = exact.rewards.exp()
    a, b, c = worth[:, :, None, None], worth[:, None, :, None], worth[:, None, None, :]
    ranked = a / (a + b + c) * b / (b + c)
    three = torch.einsum("xi,xj,xk->xijk", *[exact.reference] * 3)
    first_last = (three * ranked).sum(2)
    found = minimise(lambda h, p: losses.sigmoid_loss(h, 1.0), exact, first_last)
    assert total_variation(found, torch.softmax(exact.reference.log() + exact.rewards, 1)) > 0.02
    assert DPO.optimum(DPOConfig(pairs="best_worst"), exact) is None
    assert DPO.optimum(DPOConfig(pairs="best_worst", loss="ipo"), exact) is None


def test_smoothed_labels_lead_elsewhere() -> None:
    exact = problem()
    plain = DPO.optimum(DPOConfig(beta=1.0), exact)
    smooth = drawn(lambda h: losses.dpo_loss(h, 1.0, loss="sigmoid", label_smoothing=0.2))
    assert total_variation(minimise(smooth, exact, independent(exact)), plain) > 0.05
    assert DPO.optimum(DPOConfig(label_smoothing=0.2), exact) is None


def test_robust_loss_undoes_flipped_labels() -> None:
    """arXiv 2403.00409: on labels flipped at rate e, the robust loss is in the mean the DPO loss of the true labels."""
    h = torch.linspace(-3, 3, 7, dtype=torch.float64)
    mean = 0.8 * losses.robust_loss(h, 0.5, 0.2) + 0.2 * losses.robust_loss(-h, 0.5, 0.2)
    torch.testing.assert_close(mean, losses.sigmoid_loss(h, 0.5))


@pytest.mark.parametrize(
    ("algorithm", "config"),
    [
        (DPO, DPOConfig(loss="hinge")),
        (DPO, DPOConfig(loss="robust", label_smoothing=0.1)),
        (OnlineDPO, OnlineDPOConfig(missing_eos="keep")),
        (OnlineDPO, OnlineDPOConfig(labels="soft")),
        (OnlineDPO, OnlineDPOConfig(labels="soft", missing_eos="keep", loss="ipo")),
        (OnlineDPO, OnlineDPOConfig(labels="soft", missing_eos="keep", temperature=0.5)),
        (KTO, KTOConfig()),
        (ORPO, ORPOConfig()),
        (SimPO, SimPOConfig()),
        (APO, APOConfig()),
        (BCO, BCOConfig()),
        (CPO, CPOConfig()),
        (CPO, CPOConfig(alpha=0.0, pairs="best_worst")),
        (EXO, EXOConfig()),
        (SPPO, SPPOConfig(pairs="best_worst")),
        (WPO, WPOConfig(pairs="best_worst")),
        (LengthNormalisedDPO, LengthNormalisedDPOConfig(pairs="best_worst")),
        (AOT, AOTConfig()),
        (AOT, AOTConfig(form="unpaired")),
        (TDPO, TDPOConfig()),
        (TDPO, TDPOConfig(variant="tdpo1", pairs="best_worst")),
        (IterativeDPO, IterativeDPOConfig()),
        (IterativeDPO, IterativeDPOConfig(pairs="all", reference="round")),
        (IterativeDPO, IterativeDPOConfig(pairs="all", label_smoothing=0.1)),
        (IterativeDPO, IterativeDPOConfig(pairs="all", loss="ipo")),
        (IterativeDPO, IterativeDPOConfig(pairs="all", temperature=0.5)),
        (IterativeDPO, IterativeDPOConfig(pairs="all", ranked_by="reward")),
    ],
)
def test_no_optimum_is_claimed_where_theory_gives_none(algorithm: type[PolicyOptimizer[Any]], config: object) -> None:
    assert algorithm.optimum(config, problem()) is None


# Training: a policy over 133 responses to two prompts, on sampled pairs

UPDATES, BATCH = 100, 256
SIZE = {"updates": UPDATES, "batch_size": BATCH, "micro_batch_size": BATCH, "learning_rate": 1e-2}


@pytest.mark.parametrize(
    "config",
    [
        DPOConfig(**SIZE, beta=1.0, soft_labels=True),
        IPOConfig(**SIZE, tau=0.2, soft_labels=True),
        OnlineDPOConfig(**SIZE, beta=1.0, labels="soft", missing_eos="keep"),
    ],
    ids=["dpo", "ipo", "online_dpo"],
)
def test_training_arrives_at_the_optimum(config: DPOConfig | IPOConfig | OnlineDPOConfig) -> None:
    """In total variation the distance falls to a quarter or a third, and the optima of half and of twice the coefficient
    are further away. The start is near uniform: of responses that the reference never gives, pairs say nothing."""
    shape = {"num_layers": 1, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.2}
    policy = tiny.scratch(0, max_response_tokens=2, **shape)
    policy.freeze_reference()
    reference = distribution(policy, REFERENCE)
    rng = torch.Generator().manual_seed(0)
    rewards = torch.randn(reference.shape, generator=rng, dtype=torch.float64)
    kind = {DPOConfig: DPO, IPOConfig: IPO, OnlineDPOConfig: OnlineDPO}[type(config)]
    name = "tau" if kind is IPO else "beta"
    optimum, half, twice = (
        kind.optimum(
            dataclasses.replace(config, **{name: factor * getattr(config, name)}),
            ExactProblem(tuple(RESPONSES), reference, rewards),
        )
        for factor in (1.0, 0.5, 2.0)
    )
    start = total_variation(reference, optimum)
    assert start > 0.15

    algorithm = kind(config, policy=policy, updates=UPDATES, seeds=Seeds(0))
    online = isinstance(config, OnlineDPOConfig)
    feed = rollouts(policy, rewards, rng) if online else preferences(policy, reference, rewards, rng)
    for batch in islice(feed, UPDATES):
        algorithm.update(batch)
    trained = distribution(policy)
    left = total_variation(trained, optimum)
    assert left < 0.4 * start
    assert left < min(total_variation(trained, half), total_variation(trained, twice)) - 0.01


def preferences(
    policy: tiny.HFPolicy, reference: Tensor, rewards: Tensor, rng: torch.Generator
) -> Iterator[PreferenceBatch]:
    """Pairs of independent draws from the reference, in any order, with their probabilities."""
    every, scores = everything(policy), rewards.flatten().float()
    ref = reference_logprobs(policy, every)
    first = torch.arange(len(PROMPTS))[:, None] * len(RESPONSES)
    while True:
        one, other = (torch.multinomial(reference, BATCH, replacement=True, generator=rng) + first).reshape(-1, 2).T
        prefer = torch.sigmoid(scores[one] - scores[other])
        yield PreferenceBatch(every.select(one), every.select(other), prefer, ref[one], ref[other])


def rollouts(policy: tiny.HFPolicy, rewards: Tensor, rng: torch.Generator) -> Iterator[ScoredRollout]:
    """Two responses of the policy as it stands to each prompt, again and again."""
    places = {response: i for i, response in enumerate(RESPONSES)}
    asked = [prompt for prompt in range(len(PROMPTS)) for _ in range(BATCH // 4)]
    while True:
        rollout = policy.generate([PROMPTS[i] for i in asked], Sampling(), n=2, rng=rng)
        s = rollout.samples.sequences
        given = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(s.response_ids, s.response_mask, strict=True)]
        scores = [rewards[asked[row // 2], places[response]] for row, response in enumerate(given)]
        yield ScoredRollout(rollout, torch.stack(scores).float())
