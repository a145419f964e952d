"""Models that read a checkpoint, held to the conformance kit on a tiny one: in full precision, rounded and quantised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignbench.plugins import Component, resolve
from alignbench.testing import Check, checks_of, with_defaults
from alignbench.testing.conformance import MODEL_CHECKS
from alignbench.testing.model_trial import letters

LIMITS = {"max_prompt_tokens": 16, "max_response_tokens": 8, "lora_rank": 4}
SETTINGS = {
    "float32": {"dtype": "float32"},
    "bfloat16, checkpointing": {"dtype": "bfloat16", "gradient_checkpointing": True},
    "nf4, unmerged": {"dtype": "bfloat16", "quantization": "nf4", "merge_adapters": False},
    "int8": {"dtype": "float32", "quantization": "int8"},
}


def write_checkpoint(path: Path) -> None:
    """Grouped queries, an output layer of its own, and weights large enough that every mistake shows."""
    tokenizer = letters()
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(shape).save_pretrained(path)
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    write_checkpoint(path)
    return path


@pytest.fixture(params=SETTINGS, scope="module")
def component(request: pytest.FixtureRequest, checkpoint: Path) -> Component:
    return with_defaults(resolve("model=hf"), {"path": str(checkpoint), **LIMITS, **SETTINGS[request.param]})


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.name)
def test_it_conforms(component: Component, check: Check) -> None:
    assert check in checks_of(component)
    check.run(component, 0)
