"""A chat model of a few thousand random weights and a file of short dialogues, for trying out what takes a real one.

    python benchmarks/tiny_chat.py FOLDER

FOLDER/model is a checkpoint whose tokens are bytes, FOLDER/hh a folder in the format of HH-RLHF.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.suite.ordinary import tokenizer

ROWS = 160


def main(folder: Path) -> None:
    words = tokenizer()
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=4096, pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id, bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(shape).save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    (folder / "hh").mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "hh" / "helpful-base.test.jsonl.gz", "wt") as file:
        for i in range(ROWS):
            start = f"\n\nHuman: What is {i}?\n\nAssistant: "
            file.write(json.dumps({"chosen": f"{start}A number.", "rejected": f"{start}No."}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
