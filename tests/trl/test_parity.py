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


def away(name: str, **settings: Any) -> Trial:
    """With a policy that stands away from its reference."""
    trial = Trial(name, **(STEP | settings))
    with torch.no_grad():
        for parameter in trial.world.policy.trainable():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return trial


def moved(name: str, **settings: Any) -> torch.Tensor:
    """What one update adds to it."""
    trial = away(name, **settings)
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


@pytest.mark.parametrize(("loss", "micro"), [("sigmoid", 64), ("ipo", 64), ("sigmoid", 2)])
def test_online_dpo_makes_the_same_step_on_the_same_pairs(loss: str, micro: int) -> None:
    """Equal scores give us no pair, and TRL one that has no gradient where both responses are the same: its mean is over more of them. Of
    micro-batches TRL takes the sum of means."""
    settings: dict[str, Any] = {"beta": 0.7, "loss": loss}
    trial = away("online_dpo", **settings)
    texts, scores = _pairs(trial.world.batch(trial.config, 0))
    assert all(a == b for (a, b), (s, t) in zip(texts, scores, strict=True) if s == t), "what is tied is the same"
    share = sum(s != t for s, t in scores) / len(scores)
    assert 0 < share < 1
    pieces = 8 // min(micro, 8)
    ours = moved("online_dpo", **settings, labels="hard", missing_eos="keep")
    assert same(moved("trl_online_dpo", **settings, micro_batch_size=micro), ours, share * pieces)


def _pairs(batch: Any) -> tuple[list[tuple[str, str]], list[tuple[float, float]]]:
    texts, scores = batch.rollout.samples.texts, batch.scores.tolist()
    both = [range(i, i + 2) for i in range(0, len(scores), 2)]
    return [(texts[a], texts[b]) for a, b in both], [(scores[a], scores[b]) for a, b in both]
