"""The presets of pretrained models: what each is for is written in it, and fits together."""

from __future__ import annotations

from pathlib import Path

import pytest
from alignbench_hf.config import PretrainedConfig
from omegaconf import OmegaConf

from alignbench.app.compose import conf_dir, load_config

CONF = Path(conf_dir())
HUGE = sorted(p.stem for p in (CONF / "model").glob("*.yaml") if OmegaConf.load(p).get("quantization") == "nf4")
HUMAN = ["data=hh", "annotator=recorded"]


def test_there_are_presets() -> None:
    assert len(HUGE) >= 6


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("algo", ["ppo", "dpo"])
def test_a_four_bit_preset_is_whole(name: str, algo: str) -> None:
    config = load_config([f"model={name}", f"algo={algo}", *HUMAN])
    model = config.model.config
    assert isinstance(model, PretrainedConfig)
    assert (model.quantization, model.gradient_checkpointing, model.lora_targets) == ("nf4", True, "all-linear")
    assert model.path.count("/") == 1 and model.revision == "main"
    assert model.scoring_batch_size <= model.generation_batch_size
    for stage in (config.sft, config.reward, config.algo):
        assert 1 <= stage.config.micro_batch_size <= 16
        assert stage.config.learning_rate >= 5e-5, "of adapters, not of whole models"


@pytest.mark.parametrize("name", HUGE)
def test_a_large_gpu_takes_larger_batches_and_the_same_settings_otherwise(name: str) -> None:
    small, large = (load_config([f"model={name}", *HUMAN, *more]) for more in ([], ["gpu=80gb"]))
    assert large.model.config.generation_batch_size > small.model.config.generation_batch_size
    for stage in ("sft", "reward", "algo"):
        one, other = (getattr(config, stage).config for config in (small, large))
        assert other.micro_batch_size >= one.micro_batch_size
        assert {**vars(other), "micro_batch_size": one.micro_batch_size} == vars(one)
    assert load_config([f"model={name}", "model.revision=abc", *HUMAN]).model.config.revision == "abc"
