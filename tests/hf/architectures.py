"""Tiny random models of the architectures that people train, each a checkpoint folder as a user has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests import tiny

WIDTH, LAYERS, HEADS = 64, 2, 4  # rows of whole blocks of 64: bitsandbytes packs others wrongly on some processors
WINDOW = 4  # of sliding attention: shorter than the sequences
IDS = {"pad_token_id": tiny.PAD, "eos_token_id": tiny.EOS, "bos_token_id": None}
VOCABULARY = len(tiny.letters())

PLAIN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 64,
    **IDS,
}
GROUPED = PLAIN | {"num_key_value_heads": 2}
OLD: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64, **IDS}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": WIDTH}
VISION: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
RECURRENT: dict[str, Any] = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}


def _gemma3_text(**changes: Any) -> hf.PretrainedConfig:
    return hf.Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=WINDOW, **changes)


CONFIGS: Mapping[str, Callable[[], hf.PretrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**GROUPED),
    "mistral": lambda: hf.MistralConfig(**GROUPED, sliding_window=WINDOW),
    "qwen2": lambda: hf.Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "qwen3": lambda: hf.Qwen3Config(**GROUPED, head_dim=16),
    "gemma": lambda: hf.GemmaConfig(**GROUPED, head_dim=16),
    "gemma2": lambda: hf.Gemma2Config(**GROUPED, head_dim=16, sliding_window=WINDOW, final_logit_softcapping=2.0),
    "gemma3_text": _gemma3_text,
    "gemma3": lambda: hf.Gemma3Config(
        text_config=_gemma3_text().to_dict(),
        vision_config=VISION,
        mm_tokens_per_image=4,
        boi_token_index=5,
        eoi_token_index=6,
        image_token_index=7,
        **IDS,
    ),
    "phi": lambda: hf.PhiConfig(**GROUPED),
    "phi3": lambda: hf.Phi3Config(**PLAIN, num_key_value_heads=HEADS),
    "gpt2": lambda: hf.GPT2Config(**OLD),
    "gptj": lambda: hf.GPTJConfig(**OLD, rotary_dim=8),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**PLAIN),
    "opt": lambda: hf.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        ffn_dim=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=64,
        word_embed_proj_dim=WIDTH,
        **IDS,
    ),
    "falcon": lambda: hf.FalconConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, **IDS
    ),
    "stablelm": lambda: hf.StableLmConfig(**GROUPED),
    "olmo2": lambda: hf.Olmo2Config(**GROUPED),
    "smollm3": lambda: hf.SmolLM3Config(**GROUPED),
    "granite": lambda: hf.GraniteConfig(**GROUPED, logits_scaling=4.0, residual_multiplier=0.5),
    "cohere": lambda: hf.CohereConfig(**GROUPED, logit_scale=0.25),
    "bloom": lambda: hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS, **IDS),
    "mpt": lambda: hf.MptConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, n_layers=LAYERS, n_heads=HEADS, max_seq_len=64, **IDS
    ),
    "mixtral": lambda: hf.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": lambda: hf.Qwen2MoeConfig(
        **GROUPED, **EXPERTS, num_experts=4, shared_expert_intermediate_size=WIDTH
    ),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(**GROUPED, **EXPERTS, head_dim=16, num_experts=4),
    "deepseek_v3": lambda: hf.DeepseekV3Config(
        **PLAIN,
        **EXPERTS,
        num_key_value_heads=HEADS,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        n_shared_experts=1,
        q_lora_rank=WIDTH,
        kv_lora_rank=WIDTH,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
    ),
    "gpt_oss": lambda: hf.GptOssConfig(
        **GROUPED, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW
    ),
    "lfm2": lambda: hf.Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"], block_multiple_of=64),
    "jamba": lambda: hf.JambaConfig(
        **GROUPED, attn_layer_period=2, attn_layer_offset=1, num_experts=2, expert_layer_period=2, expert_layer_offset=1,
        mamba_d_state=8, use_mamba_kernels=False,
    ),
    "qwen3_next": lambda: hf.Qwen3NextConfig(
        **GROUPED,
        **EXPERTS,
        **RECURRENT,
        head_dim=16,
        num_experts=4,
        shared_expert_intermediate_size=WIDTH,
        layer_types=["linear_attention", "full_attention"],
    ),
    "mamba": lambda: hf.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, state_size=8, **IDS
    ),
    "t5": lambda: hf.T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=16, d_ff=WIDTH, num_layers=LAYERS, num_heads=HEADS,
        decoder_start_token_id=0, **IDS,
    ),
    "bart": lambda: hf.BartConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=WIDTH, decoder_ffn_dim=WIDTH, max_position_embeddings=64,
        decoder_start_token_id=tiny.EOS, forced_eos_token_id=None, **IDS,
    ),
}


def random_model(config: hf.PretrainedConfig) -> hf.PreTrainedModel:
    """Weights so large that every part has a say in the logits, biases and norms included."""
    make = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(0.15 * noise)
            else:
                parameter.add_(0.1 * noise)
    return model


def build(name: str, folder: Path) -> Path:
    """Writes the checkpoint `name` and gives its folder."""
    random_model(CONFIGS[name]()).save_pretrained(folder / name)
    tiny.letters().save_pretrained(folder / name)
    return folder / name
