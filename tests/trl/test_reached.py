"""Where TRL's trainers come to in an exact world, within the bounds that docs/trl.md states."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="TRL's trainers need the extra trl")

from alignbench_group.config import GRPOConfig
from alignbench_group.optimum import grpo_optimum

from alignbench import functional
from tests.trl.world import Trial, World

SCHEDULE: dict[str, Any] = {"learning_rate": 1e-2, "lr_schedule": "cosine"}
PAIRS: dict[str, Any] = {"updates": 80, "batch_size": 128, "micro_batch_size": 128}
GROUPS: dict[str, Any] = {
    "updates": 80, "batch_size": 256, "micro_batch_size": 256, "samples_per_prompt": 8, "kl_coef": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("algo", "settings", "bound"),
    [
        ("trl_dpo", {**PAIRS, "beta": 1.0}, 0.1),
        ("trl_rloo", GROUPS, 0.04),
        ("trl_grpo", {**GROUPS, "scale_rewards": "none"}, 0.06),
        ("trl_grpo", {**GROUPS, "scale_rewards": "none", "unbiased_kl": False}, 0.06),
    ],
    ids=["dpo", "rloo", "grpo", "grpo, the paper's KL"],
)
def test_reaches_its_optimum(algo: str, settings: dict[str, Any], bound: float) -> None:
    trial = Trial(algo, **SCHEDULE, **settings)
    assert trial.world.apart(trial.optimum) > 0.2, "the start is far away"
    trial.update(trial.config.updates)
    assert trial.world.apart(trial.optimum) < bound


@pytest.mark.parametrize(
    ("algo", "settings"),
    [("trl_kto", {"beta": 1.0}), ("trl_orpo", {}), ("trl_cpo", {"alpha": 0.0}), ("trl_online_dpo", {"beta": 1.0})],
)
def test_what_has_no_optimum_here_prefers_what_is_better(algo: str, settings: dict[str, Any]) -> None:
    """KTO, ORPO and online DPO of hard labels have none; CPO's is that of a uniform reference, further away than so few updates lead."""
    trial = Trial(algo, **SCHEDULE, **{**PAIRS, "updates": 20}, **settings)

    def reward() -> float:
        return float((trial.world.distribution() * trial.world.rewards).sum(1).mean())

    before = reward()
    trial.update(20)
    assert reward() > before + 0.1


@pytest.mark.parametrize(("estimator", "unbiased"), [("k2", True), ("k3", False)])
def test_the_fixed_points_are_those_of_our_grpo(estimator: str, unbiased: bool) -> None:
    """Two derivations: k2 has the gradient of KL(pi || pi_ref) at a token, as k3 times the ratio has."""
    ours = GRPOConfig(
        kl_coef=0.6, kl_estimator=estimator, scale_by_std=False, length_normalisation="none", missing_eos="keep"
    )
    trial = Trial("trl_grpo", kl_coef=0.6, scale_rewards="none", unbiased_kl=unbiased, batch_size=16)
    found = grpo_optimum(ours, trial.world.problem, trial.world.rewards)
    torch.testing.assert_close(trial.optimum, found, atol=1e-9, rtol=1e-6)
    star = functional.kl_optimum(trial.world.problem.reference, trial.world.rewards, 0.6)
    assert float(functional.total_variation(trial.optimum, star).max()) > 0.02, "it is not pi*"


def test_no_optimum_is_claimed_where_none_is_known() -> None:
    problem = World().problem
    for changes in ({"scale_rewards": "group"}, {"loss_type": "grpo"}, {"kl_coef": 0.0}, {"temperature": 0.5}):
        trial = Trial("trl_grpo", **({"scale_rewards": "none"} | changes))
        assert trial.component.load().optimum(trial.config, problem) is None
