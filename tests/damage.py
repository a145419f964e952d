"""What can be wrong with a checkpoint's folder, and what has to be said about it: for tests of whatever loads one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Damage:
    """`do` damages a folder; `said` is a pattern of the one line that refuses it."""

    name: str
    do: Callable[[Path], object]
    said: str


def edit(folder: Path, file: str = "config.json", **changes: Any) -> None:
    """Sets entries of a JSON object; None takes one away."""
    content = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def cut(folder: Path, file: str, share: float) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(len(content) * share)])


def change(folder: Path, how: Callable[[Tensors], Tensors]) -> None:
    save_file(how(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def without(part: str) -> Callable[[Path], object]:
    """The weights without those whose names have this part."""
    return lambda folder: change(folder, lambda held: {name: value for name, value in held.items() if part not in name})


def pointer(folder: Path, file: str) -> None:
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 269060552\n")


def shard(folder: Path, parts: int = 2) -> None:
    """Several files of weights and their index, in place of one."""
    held = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: f"model-{i % parts + 1:05}-of-{parts:05}.safetensors" for i, name in enumerate(sorted(held))}
    for file in {*places.values()}:
        own = {name: held[name] for name, place in places.items() if place == file}
        save_file(own, folder / file, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def lose_a_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def break_index(content: str) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        shard(folder)
        (folder / INDEX).write_text(content)

    return do


def poison(number: float, part: str = "layers.1.mlp") -> Callable[[Path], object]:
    """One number among the weights whose names have this part."""

    def into(held: Tensors) -> Tensors:
        name = next(name for name in sorted(held) if part in name)
        held[name].view(-1)[-1] = number
        return held

    return lambda folder: change(folder, into)


def pickle(folder: Path) -> None:
    """A pickle under the name that libraries look for, beside safetensors that they do not."""
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).rename(folder / "other.safetensors")


def remote(folder: Path) -> None:
    """A model by code of its own, which leaves a file where it runs."""
    edit(folder, model_type="brandnew", auto_map={"AutoConfig": "its_code.C", "AutoModelForCausalLM": "its_code.M"})
    (folder / "its_code.py").write_text(f"open({str(folder / 'it_ran')!r}, 'w')\n")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "owner/base"})
    )


def only_adapter(folder: Path) -> None:
    adapter(folder)
    (folder / "config.json").unlink()
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")


def another_token(folder: Path) -> None:
    """A padding token that the embedding has no row for."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 12, "content": "<my_pad>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    edit(folder, "tokenizer_config.json", pad_token="<my_pad>")


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


FILES = (
    Damage(
        "weights that are a pointer", lambda f: pointer(f, WEIGHTS), rf"{WEIGHTS} is a pointer of Git LFS.*git lfs pull"
    ),
    Damage(
        "tokenizer that is a pointer",
        lambda f: pointer(f, "tokenizer.json"),
        r"tokenizer\.json is a pointer of Git LFS",
    ),
    Damage("empty weights", lambda f: cut(f, WEIGHTS, 0), rf"{WEIGHTS} is empty"),
    Damage("half a header", lambda f: cut(f, WEIGHTS, 0.01), rf"{WEIGHTS} is damaged or cut off"),
    Damage("half the weights", lambda f: cut(f, WEIGHTS, 0.5), rf"{WEIGHTS} is damaged or cut off"),
    Damage("weights but the last bytes", lambda f: cut(f, WEIGHTS, 0.999), rf"{WEIGHTS} is damaged or cut off"),
    Damage("no tensors", lambda f: change(f, lambda _: {}), rf"{WEIGHTS} holds no tensors"),
    Damage("a lost shard", lose_a_shard, r"lacks model-00002-of-00002\.safetensors, one of 2 files"),
    Damage("half an index", break_index('{"weight_map": {"a'), r"index\.json is damaged: it holds no JSON"),
    Damage("an index that is a list", break_index("[]"), r"index\.json is damaged: it holds a JSON list"),
    Damage("an index of nothing", break_index("{}"), r"index\.json is damaged: its weight_map does not say"),
    Damage("an index of files elsewhere", break_index('{"weight_map": {"a": "../b"}}'), r"its weight_map does not say"),
    Damage("a pickle", pickle, r"weights there: other\.safetensors, pytorch_model\.bin\).*safetensors only"),
    Damage(
        "distributed shards",
        lambda f: (f / "shard-00000-model-00001-of-00001.safetensors").touch(),
        "distributed check",
    ),
    Damage("half a config", lambda f: cut(f, "config.json", 0.5), r"config\.json is damaged: it holds no JSON"),
    Damage(
        "a config that is a list",
        lambda f: (f / "config.json").write_text("[1]"),
        r"config\.json is damaged.*JSON list",
    ),
    Damage(
        "a config that is not text", lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), r"it holds no JSON"
    ),
    Damage("a deep config", lambda f: (f / "config.json").write_text("[" * 10**5), r"config\.json is damaged"),
    Damage(
        "half a tokenizer", lambda f: cut(f, "tokenizer.json", 0.5), r"tokenizer\.json is damaged: it holds no JSON"
    ),
    Damage("a tokenizer of nothing", lambda f: (f / "tokenizer.json").write_text("{}"), r"\(its tokenizer\)"),
    Damage(
        "a longest text that is no number",
        lambda f: edit(f, "tokenizer_config.json", model_max_length="x"),
        "its tokenizer",
    ),
    Damage("no tokenizer", no_tokenizer, r"\(its tokenizer\)|holds no tokenizer"),
    Damage(
        "half of the generation config",
        lambda f: cut(f, "generation_config.json", 0.5),
        r"generation_config\.json is dam",
    ),
    Damage(
        "an unknown model",
        lambda f: edit(f, model_type="brandnew"),
        r"model_type='brandnew' is unknown to transformers 5",
    ),
    Damage("a model without a type", lambda f: edit(f, model_type=None), r"config\.json names no model_type"),
    Damage("code of its own", remote, r"Python files of its own, and code that comes with a model is never run"),
    Damage("a wrong type", lambda f: edit(f, hidden_act=7), r"cannot be loaded"),
    Damage("only an adapter", only_adapter, r"is an adapter and not a model: it was trained on owner/base"),
    Damage("an adapter beside a model", adapter, r"holds a model and an adapter"),
)
"""Seen before any weight is read."""

CONTENT = (
    Damage("a lost layer", without("layers.1."), r"lack model\.layers\.1\.\S+, model\.layers\.1\.\S+, \S+ and 6 more, which a"),
    Damage("a lost tensor", without("norm.weight"), r"lack model\.layers\.0\.input_layernorm\.weight"),
    Damage("names of another library", lambda f: change(f, lambda h: {f"x.{n}": v for n, v in h.items()}), r"lack \S+"),
    Damage("another vocabulary", lambda f: edit(f, vocab_size=600), r"is \[12, 16\] in the file and would be \[600, 16\]"),
    Damage("another width", lambda f: edit(f, intermediate_size=25), r"is \[16, 24\] in the file and would be \[16, 25\]"),
    Damage("fewer layers", lambda f: edit(f, num_hidden_layers=1), r"hold model\.layers\.1\.\S+.* has no such layers"),
    Damage("more layers", lambda f: edit(f, num_hidden_layers=3), r"lack model\.layers\.2\.input_layernorm\.weight"),
    Damage("no layers", lambda f: edit(f, num_hidden_layers=0), r"num_hidden_layers=0 cannot be"),
    Damage("a thousand million layers", lambda f: edit(f, num_hidden_layers=10**9), r"num_hidden_layers=1000000000 cannot be"),
    Damage("ten million columns", lambda f: edit(f, hidden_size=10**7), r"hidden_size=10000000 cannot be"),
    Damage("a thousand columns", lambda f: edit(f, hidden_size=1000), r"is \[\S+ 16\] in the file and would be \[\S+ 1000\]"),
    Damage("heads of millions", lambda f: edit(f, head_dim=10**9), r"head_dim=1000000000 cannot be"),
    Damage("NaN", poison(float("nan")), r"holds NaN or infinity in model\.layers\.1\.mlp\.down_proj\.weight: the model"),
    Damage("infinity", poison(float("inf")), r"holds NaN or infinity in model\.layers\.1\.mlp\.down_proj\.weight"),
    Damage("minus infinity", poison(-float("inf"), "embed"), r"holds NaN or infinity in model\.embed_tokens\.weight"),
    Damage("a token too many", another_token, r"embedding of 12 rows lacks \(<my_pad>\)"),
)  # fmt: skip
"""Seen by the headers of the weights' files, or by the weights."""
