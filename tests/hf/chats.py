"""Tokenizers with control tokens of their own, tiny checkpoints over them, and conversations."""

from __future__ import annotations

from pathlib import Path

import torch
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignbench import Message, Prompt, Seeds
from tests import tiny

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "How many legs has a spider? It has eight, of course.\n\nUser: Assistant: 2 + 2 = 4",
    "The cat sat on the mat.",
]
CONTROL = ["<|pad|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"]
"""Their ids are 0 to 3."""


def merging(pre: str, template: str | None = CHATML, eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """A BPE with merges: over bytes as GPT-2's, or with a mark for spaces and one before a text as Llama 2's."""
    backend = Tokenizer(models.BPE(unk_token=None if pre == "bytes" else "<unk>"))
    if pre == "bytes":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        alphabet = [chr(c) for c in range(32, 127)]
    special = CONTROL if pre == "bytes" else [*CONTROL, "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(WORDS * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", eos_token=eos, chat_template=template,
        extra_special_tokens=CONTROL[1:], **({} if pre == "bytes" else {"unk_token": "<unk>"}),
    )  # fmt: skip


def checkpoint(
    folder: Path, tokenizer: PreTrainedTokenizerFast, *, eos: int | list[int] | None = None, seed: int = 0
) -> Path:
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, max_position_embeddings=256, initializer_range=0.4, pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(shape)
    if eos is not None:
        model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path, **settings: object) -> HFPolicy:
    known = {"path": str(folder), "dtype": "float32", "lora_rank": 2, "max_prompt_tokens": 96, "max_response_tokens": 8}
    config = PretrainedConfig(**(known | settings))  # type: ignore[arg-type]
    return build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))


def talk(*contents: str) -> Prompt:
    roles = ("user", "assistant")
    return Prompt("talk", tuple(Message(roles[i % 2], content) for i, content in enumerate(contents)))


def turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in prompt.messages]
