"""The exact world's tokenizer: one token a letter, and no token that a response should not hold but padding."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"


def build_tokenizer(letters: Sequence[str]) -> PreTrainedTokenizerFast:
    """A prompt is its letters: all have the same number of them, so where the response begins needs no mark."""
    ids = {token: index for index, token in enumerate((PAD, EOS, *letters))}
    backend = Tokenizer(models.WordLevel(ids, unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template="{% for message in messages %}{{ message['content'] }} {% endfor %}",
    )
