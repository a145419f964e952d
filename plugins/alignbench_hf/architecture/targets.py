"""Which layers of a model are adapted."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from alignbench import UserError, pretrained
from alignbench_hf.architecture.trunk import first_pass

ALL = "all-linear"


def adapt(model: Any, config: LoraConfig, name: str = "default") -> PeftModel:
    """The model with an adapter of that name. Raises UserError for layers that peft knows it cannot adapt."""
    try:
        with what_peft_sets_right():
            return get_peft_model(model, config, adapter_name=name)
    except ValueError as error:
        raise UserError(
            f"peft cannot adapt {type(model).__name__} with these model.lora_targets ({pretrained.one_line(error)})."
        ) from error


@contextlib.contextmanager
def what_peft_sets_right() -> Iterator[None]:
    """Nothing is said of what peft corrects by itself, or of tied weights, which are looked after here."""
    with warnings.catch_warnings():
        for start in ("fan_in_fan_out is set to", "The following (rank|alpha)_pattern keys", "Model has `tie_word_emb"):
            warnings.filterwarnings("ignore", message=start)
        yield


def targets(model: Any, wanted: str, outside: str | None) -> str | list[str]:
    """What LoraConfig's target_modules is to be where layers `outside` are left out. Raises UserError for a name that no layer
    has that can be adapted."""
    if wanted == ALL:
        return ALL
    names = [name.strip() for name in wanted.split(",")]
    there = {name for name in _layers(model) if not re.fullmatch(outside or "(?!)", name)}
    for name in names:
        if not any(have == name or have.endswith(f".{name}") for have in there):
            known = ", ".join(sorted({have.rpartition(".")[2] for have in there}))
            raise UserError(
                f"model.lora_targets: {type(model).__name__} has no layer {name!r} that can be adapted; choose {ALL} or among {known}."
            )
    return names


def excluded(model: Any, *, passes: bool = True) -> str | None:
    """Names, as a regular expression, of layers whose adapters no text would train; None where there is none. `passes`: the model
    has weights and can be asked."""
    around = _read_around(model) if passes else []
    found = [*(rf"{re.escape(name)}(\..*)?" for name in _beside_text(model)), *map(re.escape, around)]
    return f"({'|'.join(found)})" if found else None


def _layers(model: Any) -> dict[str, nn.Module]:
    kinds = nn.Linear | Conv1D | nn.Embedding
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def _read_around(model: Any) -> list[str]:
    """Layers whose weight the model multiplies by itself, such as Jamba's dt_proj: their adapters would be passed by, though not
    where they are merged."""
    asked = _layers(model)
    hooks = [module.register_forward_hook(lambda module, *rest: called.add(module)) for module in asked.values()]
    called: set[nn.Module] = set()
    ids = torch.arange(min(4, model.get_input_embeddings().weight.shape[0]), device=model.device)[None]
    try:
        with first_pass(model), torch.no_grad():
            model.base_model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    beside = _beside_text(model)
    left = {
        name: module.weight
        for name, module in asked.items()
        if module not in called
        and module is not model.get_output_embeddings()
        and module.weight.is_floating_point()
        and not any(_within(one, name) for one in beside)
    }
    if not left:
        return []
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.requires_grad_(False)
    for weight in left.values():
        weight.requires_grad_(True)
    with first_pass(model):
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        found = torch.autograd.grad(hidden.sum(), left.values(), allow_unused=True) if hidden.requires_grad else []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    return [name for name, slope in zip(left, found, strict=False) if slope is not None]


def _beside_text(model: Any) -> list[str]:
    """What reads images or sounds beside the text."""
    modules, output = dict(model.named_modules()), model.get_output_embeddings()
    decoder = next((name for name, module in modules.items() if module is model.get_decoder()), "")
    return [
        name
        for name, module in modules.items()
        if decoder
        and name
        and name.rpartition(".")[0] in _above(decoder)
        and not _within(decoder, name)
        and module is not output
    ]


def _above(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:n]) for n in range(len(parts))}


def _within(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}.")
