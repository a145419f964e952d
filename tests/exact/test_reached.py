"""The commands of docs/exact.md: how near each algorithm comes to its own optimum, within the bound that the page states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignbench.app.compose import load_config
from alignbench.pipeline.run import run

PI_STAR, OWN = "exact/total_variation", "exact/own_total_variation"
# Half as wide as the page's model: it costs half, comes as near, and no bound is wider for it. DPO, held to the narrowest, would need
# more updates, and takes smaller batches in the whole model.
HALF = ("model.hidden_size=32", "model.num_heads=2", "model.intermediate_size=64")
SMALLER = {"dpo": ("algo.batch_size=192", "algo.micro_batch_size=192")}


@pytest.mark.parametrize("algo", ["ppo", "rloo", "grpo"])
def test_settings_follow_the_length(algo: str) -> None:
    """With those of two tokens PPO ends at 0.11 of three, with these within the page's 0.04 (400 updates: too long for a test).
    What is said at the command line comes first."""

    def found(*overrides: str) -> tuple[object, ...]:
        config = load_config(["experiment=exact", f"algo={algo}", *overrides]).algo.config
        return config.updates, config.learning_rate

    assert found() == (150, 4e-3)
    assert found("data.length=3") == (400, 6e-3)
    assert found("data.length=3", "algo.updates=7") == (7, 6e-3)
    assert (
        found("data=world", "model=micro", "reward=length", "annotator=mild", "eval.families=[optimization]")[0] == 150
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "metric", "bound"),
    [
        ("ppo", PI_STAR, 0.02),
        ("dpo", PI_STAR, 0.005),
        ("rloo", PI_STAR, 0.05),
        ("grpo", PI_STAR, 0.05),
        ("online_dpo", PI_STAR, 0.05),
        ("ipo", OWN, 0.02),
        ("online_ipo", OWN, 0.02),
        ("nash_md", OWN, 0.05),
        ("xpo", PI_STAR, 0.05),
        ("rejection_sampling", OWN, 0.08),
        ("best_of_n", OWN, 1e-6),
    ],
)
def test_reaches_its_optimum(tmp_path: Path, algo: str, metric: str, bound: float) -> None:
    smaller = SMALLER.get(algo, HALF)
    directory = run(load_config(["experiment=exact", f"algo={algo}", f"results_dir={tmp_path}", *smaller]))
    start = json.loads((directory / "sft" / "result.json").read_text())["metrics"][PI_STAR]["value"]
    assert start > 0.3, "the reference is far away"
    reached = json.loads((directory / "result.json").read_text())["metrics"]
    assert reached[metric]["value"] <= bound
    if algo != "best_of_n":
        assert reached["exact/kl"]["value"] > 0
