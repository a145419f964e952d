"""TRL 1.12's own PPO, in the environment that `trl_ppo` names: where that is, its steps and where it comes to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alignbench_trl.config import PPOConfig
from alignbench_trl.environment import python_of

from alignbench import UserError
from tests.trl.test_parity import away, moved, same
from tests.trl.world import Trial

try:
    python_of(PPOConfig.environment)
except UserError as missing:
    pytest.skip(str(missing), allow_module_level=True)

EXACT: dict[str, Any] = {"epochs": 1, "gae_lambda": 1.0, "clip_value": 0.0, "kl_coef": 0.7}


def test_the_same_first_step_as_ours() -> None:
    """When both value networks say 0. TRL's variance of the advantages is that of a sample."""
    trial = away("ppo", **EXACT, missing_eos="keep")
    tokens = int(trial.world.batch(trial.config, 0).rollout.samples.sequences.response_mask.sum())
    before = trial.weights()
    trial.update()
    ours, scale = trial.weights() - before, (1 - 1 / tokens) ** 0.5
    assert same(moved("trl_ppo", **EXACT), ours, scale)
    assert not same(moved("trl_ppo", **EXACT, micro_batch_size=4), ours, scale), "a mean of micro-batches' means"


def test_goes_on_from_its_state() -> None:
    settings: dict[str, Any] = {"learning_rate": 1e-2, "lr_schedule": "linear", "epochs": 2, "minibatches": 2}
    whole, first = (Trial("trl_ppo", **settings) for _ in range(2))
    whole.update(4)
    first.update(2)
    second = Trial("trl_ppo", **settings)
    with torch.no_grad():
        for mine, saved in zip(second.world.policy.trainable(), first.world.policy.trainable(), strict=True):
            mine.copy_(saved)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.done = 2
    report = second.update(2)
    torch.testing.assert_close(second.weights(), whole.weights(), atol=1e-6, rtol=1e-5)
    assert report.metrics["learning_rate"] < 1e-2 / 3, "the schedule went on"


@pytest.mark.slow
def test_reaches_its_optimum() -> None:
    trial = Trial(
        "trl_ppo", learning_rate=1e-2, lr_schedule="cosine", updates=80, batch_size=256, micro_batch_size=256,
        **EXACT | {"kl_coef": 1.0},
    )  # fmt: skip
    assert trial.world.apart(trial.optimum) > 0.2, "the start is far away"
    trial.update(80)
    assert trial.world.apart(trial.optimum) < 0.06


def test_no_optimum_is_claimed_where_none_is_known() -> None:
    problem = Trial("rloo").world.problem
    for changes in ({"gamma": 0.9}, {"whiten_rewards": True}, {"kl_coef": 0.0}, {"temperature": 0.5}):
        trial = Trial("trl_ppo", **changes)
        assert trial.component.load().optimum(trial.config, problem) is None
