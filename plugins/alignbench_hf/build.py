"""Builds policies from their configs."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging

from alignbench import Seeds, UserError, functional, pretrained
from alignbench_hf.adapters import AdapterRoles
from alignbench_hf.config import PretrainedConfig, ScratchConfig
from alignbench_hf.policy import HFPolicy
from alignbench_hf.quantization import check_unpacking, keep_trainable, quantization_config
from alignbench_hf.roles import CopiedRoles
from alignbench_hf.weights import ensure_pad_token, is_hub_id, resolve

logging.disable_progress_bar()  # one bar at a time: the stage's own
# peft still asks transformers for an attribute that transformers has renamed.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


def build_scratch(
    config: ScratchConfig, *, tokenizer: PreTrainedTokenizerBase | None, device: torch.device, seeds: Seeds
) -> HFPolicy:
    """A Llama with random weights over the data source's tokenizer."""
    shape = scratch_shape(config, tokenizer)
    with seeds.global_torch("weights"):
        model = LlamaForCausalLM(shape).to(device)
    return HFPolicy(config, CopiedRoles(model), tokenizer, pretrained=False, device=device)


def scratch_shape(config: ScratchConfig, tokenizer: PreTrainedTokenizerBase | None) -> LlamaConfig:
    """What a model built from scratch is over this tokenizer."""
    if tokenizer is None:
        raise UserError(
            "A model built from scratch needs a data source with a tokenizer of its own, such as data=world."
        )
    if config.hidden_size % config.num_heads:
        raise UserError(
            f"model.hidden_size={config.hidden_size} is not divisible by model.num_heads={config.num_heads}."
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


def build_pretrained(
    config: PretrainedConfig, *, tokenizer: PreTrainedTokenizerBase | None, device: torch.device, seeds: Seeds
) -> HFPolicy:
    """A pretrained model with LoRA adapters; the data source's tokenizer is not used: a model brings its own."""
    dtype = base_dtype(config.dtype, device)
    quantization = quantization_config(config.quantization, dtype, device)
    folder: Path = resolve(
        config.path,
        revision=config.revision,
        gguf_file=config.gguf_file,
        wheel=config.wheel,
        to_quantize=quantization is not None,
    )
    own = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ensure_pad_token(own)
    with functional.within_memory("loading the base", "model.quantization=nf4", "model.dtype=bfloat16"):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention(config.attention, device),
            device_map={"": device},  # all of it on this process's own device
            local_files_only=True,
            # Said aloud, None would hide that a checkpoint is quantised, and its weights would be drawn at random.
            **({"quantization_config": quantization} if quantization else {}),
        )
    keep_trainable(model, device)
    check_unpacking(model, device)
    window = getattr(model.config, "max_position_embeddings", None)
    if window and config.max_prompt_tokens + config.max_response_tokens > window:
        raise UserError(
            f"model.max_prompt_tokens + model.max_response_tokens = {config.max_prompt_tokens + config.max_response_tokens} "
            f"is over the model's window of {window} tokens."
        )
    targets = config.lora_targets if config.lora_targets == "all-linear" else config.lora_targets.split(",")
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=targets,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        revision=config.revision if is_hub_id(config.path) else None,
    )
    with seeds.global_torch("adapters"):
        roles = AdapterRoles(
            model,
            lora,
            merge_while_sampling=config.merge_adapters,
            gradient_checkpointing=config.gradient_checkpointing,
            base_name=config.path if is_hub_id(config.path) else str(Path(config.path).expanduser().resolve()),
        )
    return HFPolicy(config, roles, own, pretrained=True, device=device, fingerprint=pretrained.fingerprint(folder))


def attention(name: str, device: torch.device) -> str:
    """The implementation of transformers that a setting stands for (see PretrainedConfig)."""
    return name if name != "auto" else "eager" if device.type == "cpu" else "sdpa"


def base_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device multiplies in it, float32 elsewhere (emulated bfloat16 is slow)."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name in known:
        return known[name]
    if name != "auto":
        raise UserError(f"model.dtype={name!r}: choose auto, float32 or bfloat16.")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability() != "DEFAULT" and _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    """Whether the processor has bfloat16 dot products (AVX512-BF16, AMX, or Arm's BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
