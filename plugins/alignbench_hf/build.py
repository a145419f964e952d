"""Builds policies from their configs."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging

from alignbench import POLICY, Seeds, UserError, pretrained, user_path
from alignbench_hf.adapters import AdapterRoles
from alignbench_hf.architecture.targets import excluded, targets
from alignbench_hf.architecture.trunk import Sharing, require_decoder, window
from alignbench_hf.base import attention, base_dtype, scratch_shape
from alignbench_hf.chat.load import check_gguf, load_chat
from alignbench_hf.checkpoint.resolve import is_hub_id, resolve
from alignbench_hf.checkpoint.tokenizer import ensure_pad_token
from alignbench_hf.config import PretrainedConfig, ScratchConfig
from alignbench_hf.engine.choose import chosen
from alignbench_hf.policy import HFPolicy
from alignbench_hf.probe import check_reading
from alignbench_hf.quantization import check_unpacking, evaluation_mode, keep_trainable, quantization_config
from alignbench_hf.roles import CopiedRoles
from alignbench_hf.sharding import begin_sharded, shards_of

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


def build_pretrained(
    config: PretrainedConfig, *, tokenizer: PreTrainedTokenizerBase | None, device: torch.device, seeds: Seeds
) -> HFPolicy:
    """A pretrained model with LoRA adapters; the data source's tokenizer is not used: a model brings its own."""
    dtype = base_dtype(config.dtype, device)
    quantization = quantization_config(config.quantization, dtype, device)
    check_gguf(config)
    folder: Path = resolve(
        config.path,
        revision=config.revision,
        gguf_file=config.gguf_file,
        wheel=config.wheel,
        to_quantize=quantization is not None,
    )
    checkpoint = pretrained.Checkpoint(folder, "model.path")
    checkpoint.check()
    require_decoder(checkpoint.config(), config.path)
    own = checkpoint.tokenizer()
    ensure_pad_token(own)
    chat = load_chat(config, own, folder)  # before any weight is read
    engine = chosen(config, folder, str(dtype).removeprefix("torch."))
    shards = shards_of(config, device)
    model = checkpoint.model(
        AutoModelForCausalLM,
        tokenizer=own,
        dtype=dtype,
        device=device,  # all of it on this process's own
        quantization=quantization,
        attn_implementation=attention(config.attention, device),
        less=("model.dtype=bfloat16",) if shards > 1 else ("model.quantization=nf4", "model.dtype=bfloat16"),
        shards=shards,
    )
    if shards > 1:
        with checkpoint.reading("its first pass"):
            begin_sharded(model)
    keep_trainable(model, device)
    check_unpacking(model, device)
    evaluation_mode(model)
    most = window(model)
    if most and config.max_prompt_tokens + config.max_response_tokens > most:
        raise UserError(
            f"model.max_prompt_tokens + model.max_response_tokens = {config.max_prompt_tokens + config.max_response_tokens} "
            f"is over the model's window of {most} tokens."
        )
    outside = excluded(model)
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=targets(model, config.lora_targets, outside),
        exclude_modules=outside,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        revision=config.revision if is_hub_id(config.path) else None,
    )
    with seeds.global_torch("adapters"):
        roles = AdapterRoles(
            model,
            lora,
            merge_while_sampling=config.merge_adapters and shards == 1,
            gradient_checkpointing=config.gradient_checkpointing,
            passes=config.blocks
            if shards == 1
            else "eager",  # of a divided model each layer is put together as the host comes to it
            base_name=config.path if is_hub_id(config.path) else str(user_path(config.path, "model.path").resolve()),
        )
    # Of a divided model, rows that share their prompts otherwise would take other passes than those of other processes.
    sharing = roles.sharing if shards == 1 else Sharing(prompts=False)
    with checkpoint.reading("its first pass"):
        roles.sharing = check_reading(roles.use(POLICY), roles.computing, sharing)
    return HFPolicy(
        config,
        roles,
        own,
        pretrained=True,
        device=device,
        fingerprint=pretrained.fingerprint(folder),
        chat=chat,
        engine=engine,
    )
