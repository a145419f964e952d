"""What a checkpoint's tokenizer must have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignbench import UserError, pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives the tokenizer a padding token that is not its EOS."""
    token = pretrained.padding_token(tokenizer)
    if token is not None:
        tokenizer.pad_token = token
        return
    raise UserError(
        f"The tokenizer {tokenizer.name_or_path!r} has no token to pad with apart from EOS ({tokenizer.eos_token!r}). "
        "Set pad_token in its tokenizer_config.json to a special token that texts do not contain."
    )
