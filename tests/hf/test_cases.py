"""Small checkpoints that failed once, made from public reports of the field: what each must do now."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy

from alignbench import Seeds, UserError
from tests import tiny
from tests.shared_data import shared_case

LIMITS = {"max_prompt_tokens": 64, "max_response_tokens": 16, "lora_rank": 4, "dtype": "float32"}

REFUSED = {
    "broken_c_bad_json": r"config\.json is damaged: it holds no JSON",
    "broken_c_gptq": r"quantised by gptq.*model\.quantization=nf4",
    "broken_c_remote": r"code that comes with a model is never run",
    "broken_c_unknown": r"model_type='brandnew' is unknown to transformers",
    "broken_k_more_tokens": r"embedding of 500 rows lacks \(<my_pad>",
    "broken_m_classifier": r"lack lm_head\.weight, which a LlamaForCausalLM has",
    "broken_w_lfs": r"model\.safetensors is a pointer of Git LFS",
    "broken_w_lost_shard": r"lacks model-00002-of-00002\.safetensors",
    "broken_w_missing": r"lack model\.layers\.1\.input_layernorm\.weight, .* and 6 more",
    "broken_w_no_head": r"lack lm_head\.weight",
    "model_weights_in_bin": r"weights there: other\.safetensors, pytorch_model\.bin\).*safetensors only",
    "rms_bert": r"lack cls\.predictions\.\S+, .* BertLMHeadModel",
    "rms_more_tokens": r"lack lm_head\.weight",
}
"""Folders that are refused, and the pattern of the one line. Templates that are refused at load belong here too."""

LOADED: dict[str, dict[str, Any]] = {"models_opt": {}, "wide_qwen2": {}}
"""Folders that are loaded, with the settings that they need beside LIMITS. Architectures that train belong here."""


def build(name: str, **options: Any) -> HFPolicy:
    config = PretrainedConfig(path=str(shared_case("models", name)), **(LIMITS | options))
    return build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line(
    name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder: Path = shared_case("models", name)
    before = sorted(folder.iterdir())
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match=REFUSED[name]) as caught:
        build(name)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert capfd.readouterr() == ("", "") and not caplog.records, "the line is all that is said"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", LOADED)
def test_it_computes(name: str) -> None:
    policy = build(name, **LOADED[name])
    sequences = policy.encode(tiny.PROMPTS[:3], ("Yes.", "No, it is not.", "")).sequences
    logprobs = policy.logprobs(sequences).logprobs
    assert torch.isfinite(logprobs).all() and (logprobs[sequences.response_mask] < 0).all()
