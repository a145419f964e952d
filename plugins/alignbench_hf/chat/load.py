"""The chat of a checkpoint's folder: its template, and what ends a response, before any weight is read."""

from __future__ import annotations

import datetime
import importlib.util
import logging
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from alignbench import UserError, pretrained, user_path
from alignbench_hf.chat.templates import NAMED, choices, fixed, name_of, template_of
from alignbench_hf.chat.tokens import Chat
from alignbench_hf.config import PretrainedConfig

log = logging.getLogger(__name__)


def check_gguf(config: PretrainedConfig) -> None:
    """A GGUF file here without a chat template is refused before it is converted, which takes a minute."""
    file = user_path(Path(config.path, config.gguf_file), "model.path")
    if config.chat_template or not file.is_file() or importlib.util.find_spec("gguf") is None:
        return
    from gguf import GGUFReader

    try:
        found = GGUFReader(file).get_field("tokenizer.chat_template")
    except Exception:  # whoever converts it says what is wrong with it
        return
    if found is None:
        raise UserError(
            f"{file} has no chat template, as a base model's: choose one, model.chat_template={'|'.join(NAMED)} or a .jinja file."
        )


def load_chat(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Chat:
    """The tokenizer keeps the template, so that whatever is saved or exported has it."""
    template = template_of(tokenizer, config.chat_template)
    day = datetime.datetime.fromisoformat(config.template_date)
    tokenizer.chat_template = fixed(
        template,
        config.template_kwargs,
        day,
        name=config.chat_template if config.chat_template.endswith(".jinja") else name_of(tokenizer),
    )
    return Chat(
        tokenizer,
        stops=stops(tokenizer, folder),
        trusted=bool(config.chat_template),
        strip_thinking=config.strip_thinking,
        remedy=choices(tokenizer),
    )


def stops(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[int]:
    """What transformers' `generate` stops this checkpoint at: generation_config.json, or config.json where there is none.

    An id that stands for ordinary text, as a default that fits another vocabulary, would cut responses at a word."""
    found: set[int] = set()
    for path in (folder / "generation_config.json", folder / "config.json"):
        settings = pretrained.json_object(path) if path.is_file() else {}
        given = settings.get("eos_token_id", (settings.get("text_config") or {}).get("eos_token_id"))
        if given is not None:
            listed = given if isinstance(given, list) else [given]
            if not all(type(id) is int for id in listed):
                raise UserError(
                    f"{path}: eos_token_id={given!r} is neither a token's number nor a list of them: mend it."
                )
            found = set(listed)
            break
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    if odd := sorted(found - control):
        log.warning(
            "%s: eos_token_id %s is no control token of its tokenizer, and left alone.", name_of(tokenizer), odd
        )
    return sorted(found & control)
