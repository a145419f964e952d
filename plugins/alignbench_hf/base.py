"""What a base is before it is built: its shape, the type of its numbers, its attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, PreTrainedTokenizerBase

from alignbench import UserError

if TYPE_CHECKING:
    from alignbench_hf.config import ScratchConfig


def scratch_shape(config: ScratchConfig, tokenizer: PreTrainedTokenizerBase | None) -> LlamaConfig:
    """What a model built from scratch is over this tokenizer."""
    if tokenizer is None:
        raise UserError(
            "A model built from scratch (model=tiny, model=micro) speaks the language of its data alone, and this data is "
            "ordinary text: choose a pretrained model, as model=smollm2 or model=hf model.path=<hub id or folder>, or data "
            "with a tokenizer of its own, as data=world."
        )
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_prompt_tokens + config.max_response_tokens,
        initializer_range=config.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def attention(name: str, device: torch.device) -> str | None:
    """The implementation of transformers that a setting stands for (see PretrainedConfig). None: sdpa where the architecture has it."""
    return name if name != "auto" else "eager" if device.type == "cpu" else None


def base_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device multiplies in it, float32 elsewhere (emulated bfloat16 is slow)."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name in known:
        return known[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability() != "DEFAULT" and _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    """Whether the processor has bfloat16 dot products (AVX512-BF16, AMX, or Arm's BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
