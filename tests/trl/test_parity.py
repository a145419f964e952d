"""One step of TRL's trainers beside one of ours, on the same batch: what they have in common to the last digits, and what they do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="TRL's trainers need the extra trl")

from tests.trl.world import Trial

# With so large an eps AdamW's first step is learning_rate times the gradient, but for a hair.
STEP: dict[str, Any] = {"learning_rate": 1.0, "adam_eps": 1e3, "lr_schedule": "constant", "max_grad_norm": 0.0}
GROUPS: dict[str, Any] = {"samples_per_prompt": 4, "kl_coef": 0.7}


def moved(name: str, **settings: Any) -> torch.Tensor:
    """What one update adds to a policy that stands away from its reference."""
    trial = Trial(name, **(STEP | settings))
    with torch.no_grad():
        for parameter in trial.world.policy.trainable():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    before = trial.weights()
    trial.update()
    return trial.weights() - before


def same(left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> bool:
    size = float(right.abs().max())
    assert size > 1e-6, "the step is there"
    return float((left - scale * right).abs().max()) < 0.01 * scale * size


@pytest.mark.parametrize(
    ("algo", "theirs", "ours", "scale"),
    [
        ("dpo", {"beta": 0.7}, {}, 1.0),
        ("cpo", {"beta": 0.7, "alpha": 0.0}, {}, 1.0),
        ("kto", {"beta": 0.7}, {}, 1.0),  # its reference point is 0 here
        ("rloo", GROUPS, {"missing_eos": "keep"}, 1.0),
        # TRL divides the sum over tokens by the longest response, of two tokens.
        (
            "grpo",
            {**GROUPS, "scale_rewards": "none", "loss_type": "dr_grpo", "unbiased_kl": False},
            {"missing_eos": "keep", "scale_by_std": False, "length_normalisation": "none", "kl_estimator": "k3"},
            2.0,
        ),
        (
            "grpo",
            {**GROUPS, "scale_rewards": "none", "loss_type": "grpo", "unbiased_kl": False},
            {"missing_eos": "keep", "scale_by_std": False, "length_normalisation": "response", "kl_estimator": "k3"},
            1.0,
        ),
        # TRL's deviation of a group of four is that of a sample: its advantages are smaller by sqrt(3/4).
        (
            "grpo",
            {**GROUPS, "kl_coef": 0.0, "scale_rewards": "group", "loss_type": "dr_grpo"},
            {"missing_eos": "keep", "scale_by_std": True, "length_normalisation": "none"},
            2.0 * (4 / 3) ** 0.5,
        ),
    ],
    ids=["dpo", "cpo", "kto", "rloo", "dr_grpo", "grpo", "scaled"],
)
def test_the_same_step(algo: str, theirs: dict[str, Any], ours: dict[str, Any], scale: float) -> None:
    only = ("scale_rewards", "loss_type", "unbiased_kl")
    shared = {name: value for name, value in theirs.items() if name not in only}
    assert same(moved(algo, **shared, **ours), moved(f"trl_{algo}", **theirs), scale)


@pytest.mark.parametrize(("algo", "settings"), [("orpo", {"orpo_lambda": 0.7}), ("cpo", {"beta": 0.7, "alpha": 1.0})])
def test_another_step_where_tokens_are_averaged_otherwise(algo: str, settings: dict[str, Any]) -> None:
    assert not same(moved(algo, **settings), moved(f"trl_{algo}", **settings))
