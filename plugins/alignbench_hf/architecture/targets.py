"""Which layers of a model are adapted."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from alignbench import UserError

ALL = "all-linear"


def targets(model: Any, wanted: str) -> str | list[str]:
    """What LoraConfig's target_modules is to be. Raises UserError for a name that no layer has that can be adapted."""
    if wanted == ALL:
        return ALL
    names = [name.strip() for name in wanted.split(",")]
    outside = re.compile(beside_text(model) or "(?!)")
    there = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D | nn.Embedding) and not outside.fullmatch(name)
    }
    for name in names:
        if not any(have == name or have.endswith(f".{name}") for have in there):
            known = ", ".join(sorted({have.rpartition(".")[2] for have in there}))
            raise UserError(
                f"model.lora_targets: {type(model).__name__} has no layer {name!r} to adapt; choose {ALL} or among {known}."
            )
    return names


def beside_text(model: Any) -> str | None:
    """Names, as a regular expression, of what reads images or sounds beside the text: no text would ever train an adapter
    there. None where there is nothing."""
    modules, output = dict(model.named_modules()), model.get_output_embeddings()
    decoder = next((name for name, module in modules.items() if module is model.get_decoder()), "")
    beside = [
        name
        for name, module in modules.items()
        if name and name.rpartition(".")[0] in _above(decoder) and not _within(decoder, name) and module is not output
    ]
    return rf"({'|'.join(map(re.escape, beside))})(\..*)?" if decoder and beside else None


def _above(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:n]) for n in range(len(parts))}


def _within(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}.")
