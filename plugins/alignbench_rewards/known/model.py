"""A reward model small enough to build on the spot, and its scores read row by row, for the conformance kit."""

from __future__ import annotations

import functools
import tempfile
from typing import Any

import torch

from alignbench import DataSource, Known, Policy, Samples

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
OTHER = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"
TOKENS = ("<unk>", "<end>", "<user>", "<assistant>", "<pad>", " ", *"hgfedcba")
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def folder() -> str:
    """Of a classifier with two outputs and a tokenizer that pads with the end of a turn, as chat models do."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    _KEPT.append(tempfile.TemporaryDirectory(prefix="alignbench-check-"))
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.add_special_tokens(["<end>", "<user>", "<assistant>", "<pad>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<end>", eos_token="<end>", unk_token="<unk>", chat_template=TEMPLATE
    )
    shape = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, initializer_range=0.4, num_labels=2, pad_token_id=1, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForSequenceClassification(shape).save_pretrained(_KEPT[-1].name)
    tokenizer.save_pretrained(_KEPT[-1].name)
    return _KEPT[-1].name


def hf() -> list[Known]:
    """The chosen output at the last token of each text, one row at a time; what is too long loses its beginning."""

    def gives(config: Any, policy: Policy, data: DataSource, samples: Samples) -> list[float]:
        from transformers import LlamaForSequenceClassification

        model: Any = LlamaForSequenceClassification.from_pretrained(folder())
        found = []
        for prompt, text in zip(samples.prompts, samples.texts, strict=True):
            turns = ["<user>", *prompt.text, "<end>", "<assistant>", *text, "<end>"]
            if config.template:
                turns = [*prompt.text, "<end>", *text, "<end>"]
            if config.format == "pair":
                turns = [*prompt.text, *text]
            ids = [TOKENS.index(sign) for sign in turns][-config.max_length :]
            with torch.no_grad():
                state = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
                found.append(float(model.score(state)[config.label]))
        return found

    options = {"model": folder(), "label": 1, "batch_size": 5}
    return [
        Known(options, gives),
        Known({**options, "label": 0, "max_length": 7, "template": OTHER}, gives),
        Known({**options, "format": "pair"}, gives),
    ]
