"""What pairs taught the policy: values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from alignbench_dpo.config import DPOConfig, IPOConfig, KTOConfig, ORPOConfig, SimPOConfig
from alignbench_ppo.config import PPOConfig
from alignbench_selection.config import BestOfNConfig
from alignbench_suite.config import PreferencesConfig
from alignbench_suite.preferences.evaluation import Preferences

from alignbench import ImplicitReward, MeasuredRanking, Ranking, Subject, functional
from alignbench.evaluation.preferences import measured
from tests import tiny

# Three responses, the last two tied; and two people who ranked one pair, of whom the second disagrees.
KNOWN = (
    MeasuredRanking(
        Ranking(tiny.prompt("a"), ("x", "y", "z"), (0, 1, 1)), (-2.0, -3.0, -1.0), (-3.0, -3.0, -1.5), (2, 3, 2)
    ),
    MeasuredRanking(Ranking(tiny.prompt("b"), ("x", "y"), (0, 1), annotator="Ann"), (-4.0, -6.0), (-5.0, -6.0), (8, 2)),
    MeasuredRanking(Ranking(tiny.prompt("b"), ("x", "y"), (1, 0), annotator="Bob"), (-4.0, -6.0), (-5.0, -6.0), (8, 2)),
    MeasuredRanking(
        Ranking(tiny.prompt("c"), ("x", "x", "y"), (0, 1, 2)), (-1.0, -1.0, -1.0), (-1.0, -1.0, -1.0), (1, 1, 1)
    ),
)


def subject(known: Sequence[MeasuredRanking] = KNOWN, implicit: ImplicitReward | None = None) -> Subject:
    return Subject(
        Path("model"), (), (), tiny.letters(), lambda prompts, n: (), lambda prompts, responses: (),
        preferences=lambda limit: tuple(known)[: limit or None], implicit=implicit,
    )  # fmt: skip


def values(on: Subject, metric: str, limit: int = 0) -> dict[str, float]:
    scores = Preferences(PreferencesConfig(limit=limit)).evaluate(on)
    return {score.example: score.value for score in scores if score.metric == f"preferences/{metric}"}


def test_the_implicit_reward_of_a_policy_with_a_reference() -> None:
    """Log-ratios are 1, 0, .5 and 1, 0; ties of the ranks and responses that are the same give no pair."""
    on = subject(implicit=ImplicitReward(beta=2.0))
    margins = {"a 0: 0 over 1": 1.0, "a 0: 0 over 2": 0.5, "b 0: 0 over 1": 1.0, "b 1: 1 over 0": -1.0}
    margins |= {"c 0: 0 over 2": 0.0, "c 0: 1 over 2": 0.0}
    assert values(on, "margin") == margins
    assert values(on, "accuracy") == {name: 0.5 + 0.5 * (m > 0) - 0.5 * (m < 0) for name, m in margins.items()}
    assert values(on, "ranking_accuracy")["a 0: 0 over 2"] == 0.0 < values(on, "ranking_accuracy")["a 0: 0 over 1"]
    # Three of confidence s(2), two of them right; one of s(1), right; two that are not known.
    far, near = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))
    error = (3 * abs(far - 2 / 3) + abs(near - 1)) / 6
    found = values(on, "calibration_error")
    assert sum(found.values()) / len(found) == pytest.approx(error)


def test_the_implicit_reward_without_a_reference_is_that_of_a_mean_token() -> None:
    on = subject(implicit=ImplicitReward(per_token=True))
    assert values(on, "margin")["a 0: 0 over 2"] == pytest.approx(-1.0 + 0.5)
    assert values(on, "accuracy")["b 0: 0 over 1"] == 1.0 and values(on, "margin")["b 0: 0 over 1"] == pytest.approx(
        2.5
    )
    assert values(on, "calibration_error") == {}, "without beta a margin is no logit"


def test_the_implicit_reward_of_a_mean_token_with_a_reference_and_of_a_response_without_one() -> None:
    """Of the first pair: log-ratios 1 and 0; log-probabilities as they are."""
    (ranking,) = (r for r in KNOWN if r.ranking.prompt == tiny.prompt("a"))
    token = subject([ranking], ImplicitReward(per_token=True, beta=5.0, reference=True))
    assert values(token, "margin")["a 0: 0 over 1"] == pytest.approx(1.0 / ranking.tokens[0])
    whole = subject([ranking], ImplicitReward(beta=0.1, reference=False))
    assert values(whole, "margin")["a 0: 0 over 1"] == pytest.approx(ranking.logprobs[0] - ranking.logprobs[1])
    assert values(whole, "calibration_error") != {}


def test_the_sft_model_is_judged_by_log_probability_alone() -> None:
    scores = Preferences(PreferencesConfig()).evaluate(subject())
    assert {score.metric for score in scores} == {"preferences/ranking_accuracy"}
    assert {score.cluster for score in scores} == {"a", "b", "c"}


def test_rankings_are_limited_and_may_be_missing() -> None:
    assert Preferences(PreferencesConfig()).evaluate(subject(())) == ()
    assert len(values(subject(), "ranking_accuracy", limit=1)) == 2


def test_shares_of_the_calibration_error() -> None:
    """Their mean is the error by its definition, a bin at a time."""
    rng = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(300, generator=rng, dtype=torch.float64)
    right = (torch.rand(300, generator=rng) < 0.7).double()
    expected = 0.0
    for low in range(10):
        inside = (confidence >= 0.5 + low / 20) & (confidence < 0.5 + (low + 1) / 20)
        if inside.any():
            expected += float(abs(confidence[inside].mean() - right[inside].mean()) * inside.sum() / 300)
    assert float(functional.calibration_shares(confidence, right).mean()) == pytest.approx(expected)
    certain = torch.ones(4, dtype=torch.float64)
    assert functional.calibration_shares(certain, certain).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("config", "implicit"),
    [
        (DPOConfig(beta=0.3), ImplicitReward(beta=0.3)),
        (DPOConfig(beta=0.3, loss="hinge"), ImplicitReward()),
        (KTOConfig(), ImplicitReward(beta=0.1)),
        (IPOConfig(), ImplicitReward()),
        (SimPOConfig(), ImplicitReward(per_token=True, beta=2.0)),
        (ORPOConfig(), ImplicitReward(per_token=True)),
        (PPOConfig(), ImplicitReward()),
        (BestOfNConfig(), None),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "consumes") else "",
)
def test_what_each_algorithm_takes_a_response_to_be_worth(config: object, implicit: ImplicitReward | None) -> None:
    assert config.implicit_reward() == implicit  # type: ignore[attr-defined]


def test_held_out_rankings_are_measured_as_they_are_learnt_from() -> None:
    """Cut at the policy's limits, without an EOS where a response did not end; what two people ranked is read once."""
    policy = tiny.scratch()
    policy.freeze_reference()
    tiny.move(policy)
    rankings = [
        Ranking(tiny.prompt("a"), ("b", "a b c d e f g"), (0, 1), finished=(False, True)),
        Ranking(tiny.prompt("a"), ("b", "c d"), (1, 0), finished=(False, True)),
    ]
    first, second = measured(policy, rankings, reference=True)
    assert (first.tokens, second.tokens) == ((1, 6), (1, 3))
    assert first.logprobs[0] == second.logprobs[0] and first.ranking is rankings[0]
    ids = [*policy.tokenizer.convert_tokens_to_ids(["c", "d"]), tiny.EOS]
    (alone,) = policy.logprobs(policy.given([tiny.prompt("a")], [ids])).logprobs.sum(1).tolist()
    assert second.logprobs[1] == pytest.approx(alone, abs=1e-5)
    assert second.ref_logprobs[1] != pytest.approx(second.logprobs[1], abs=1e-3)
    (only, _) = measured(policy, rankings, reference=False)
    assert only == replace(first, ref_logprobs=())
    assert measured(policy, [], reference=True) == ()
