"""Folders that somebody made to do harm, beside those of tests/damage.py: what a model's folder can hold that nobody's does."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.damage import CONTENT, FILES, INDEX, WEIGHTS, edit, shard


def header(text: bytes, length: int | None = None) -> Callable[[Path], object]:
    """A safetensors file that begins with this header, of this length as it says."""
    return lambda folder: (folder / WEIGHTS).write_bytes(
        struct.pack("<Q", len(text) if length is None else length) + text
    )


def tensor(dtype: str, shape: list[Any], offsets: list[int]) -> bytes:
    return json.dumps({"lm_head.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


def fifo(file: str) -> Callable[[Path], object]:
    """A pipe that nobody ever writes to: who opens it waits."""

    def do(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return do


def directory(file: str) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).mkdir()

    return do


def link(file: str, to: str) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(to)

    return do


def text(file: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def template(content: str) -> Callable[[Path], object]:
    return text("chat_template.jinja", content)


def shard_to(place: Any) -> Callable[[Path], object]:
    """An index whose first tensor lies in this file."""

    def do(folder: Path) -> None:
        shard(folder)
        said = json.loads((folder / INDEX).read_text())
        said["weight_map"][next(iter(said["weight_map"]))] = place
        (folder / INDEX).write_text(json.dumps(said))

    return do


def adapter(**said: Any) -> Callable[[Path], object]:
    """A folder of an adapter alone."""

    def do(folder: Path) -> None:
        (folder / "config.json").unlink()
        (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | said))

    return do


def config(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder, **changes)


HOSTILE: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("weights that are a pipe", fifo(WEIGHTS)),
    ("a config that is a pipe", fifo("config.json")),
    ("a tokenizer that is a pipe", fifo("tokenizer.json")),
    ("a generation config that is a pipe", fifo("generation_config.json")),
    ("a template that is a pipe", fifo("chat_template.jinja")),
    ("an index that is a pipe", lambda f: ((f / WEIGHTS).unlink(), fifo(INDEX)(f))),
    ("weights that are a folder", directory(WEIGHTS)),
    ("a config that is a folder", directory("config.json")),
    ("a tokenizer that is a folder", directory("tokenizer.json")),
    ("a generation config that is a folder", directory("generation_config.json")),
    ("a template that is a folder", directory("chat_template.jinja")),
    ("weights that are a device without an end", link(WEIGHTS, "/dev/zero")),
    ("a config that is a device without an end", link("config.json", "/dev/zero")),
    ("a tokenizer that is a device", link("tokenizer.json", "/dev/urandom")),
    ("a config that is a link to itself", link("config.json", "config.json")),
    ("weights that are a link to nothing", link(WEIGHTS, "/nonexistent/model.safetensors")),
    ("a config that is somebody's file", link("config.json", "/etc/passwd")),
    ("a header of nothing", header(b"")),
    ("a header of 2**63 bytes", header(b"{}", 2**63)),
    ("a header of 2**64 - 1 bytes", header(b"{}", 2**64 - 1)),
    ("a header of a gigabyte", header(b"{}", 2**30)),
    ("a header that is a list", header(b"[]")),
    ("a header of brackets", header(b"[" * 100_000)),
    ("numbers of an unknown type", header(tensor("F7", [1], [0, 4]) + b"")),
    ("a tensor of 2**62 rows", header(tensor("F32", [2**62, 4], [0, 4]))),
    ("a tensor of -1 rows", header(tensor("F32", [-1], [0, 4]))),
    ("a tensor that begins after its end", header(tensor("F32", [1], [4, 0]))),
    ("a tensor beyond the file", header(tensor("F32", [2**20], [0, 2**22]))),
    ("a shard in the folder above", shard_to("../../x.safetensors")),
    ("a shard at the root", shard_to("/etc/passwd")),
    ("a shard that is a number", shard_to(7)),
    ("a shard that is a pickle", shard_to("pytorch_model.bin")),
    ("no width", config(hidden_size=0)),
    ("a width of -1", config(hidden_size=-1)),
    ("a width in words", config(hidden_size="wide")),
    ("a million million layers", config(num_hidden_layers=10**12)),
    ("-1 layers", config(num_hidden_layers=-1)),
    ("half a layer", config(num_hidden_layers=0.5)),
    ("no vocabulary", config(vocab_size=0)),
    ("a vocabulary of -1", config(vocab_size=-1)),
    ("a vocabulary of a million million", config(vocab_size=10**12)),
    ("no heads", config(num_attention_heads=0)),
    ("heads that do not divide", config(num_attention_heads=3)),
    ("-1 key heads", config(num_key_value_heads=-1)),
    ("no positions", config(max_position_embeddings=0)),
    ("an activation that is none", config(hidden_act="__import__('os')")),
    ("a dtype that is none", config(dtype="float7", torch_dtype="float7")),
    ("a rope of a kind that is none", config(rope_parameters={"rope_type": "evil", "rope_theta": 1e4})),
    ("a number of 5000 digits", lambda f: text("config.json", (f / "config.json").read_text().replace("{", '{"hidden_size": ' + "9" * 5000 + ",", 1))(f)),
    ("a config of UTF-16", lambda f: text("config.json", (f / "config.json").read_text().encode("utf-16"))(f)),
    ("a tokenizer of UTF-16", lambda f: text("tokenizer.json", (f / "tokenizer.json").read_text().encode("utf-16"))(f)),
    ("a type of model named twice", lambda f: text("config.json", (f / "config.json").read_text().rstrip()[:-1] + ', "model_type": "brandnew"}')(f)),
    ("deep objects", text("config.json", '{"a":' * 50_000)),
    ("a deep tokenizer", text("tokenizer.json", "[" * 200_000)),
    ("a deep generation config", text("generation_config.json", '{"a":' * 50_000)),
    ("a deep index", lambda f: (shard(f), text(INDEX, '{"weight_map":' * 50_000)(f))),
    ("a temperature in words", lambda f: text("generation_config.json", '{"temperature": "hot", "eos_token_id": "x"}')(f)),
    ("an end that is no token", lambda f: text("generation_config.json", '{"eos_token_id": 100000}')(f)),
    ("an end of -5", lambda f: text("generation_config.json", '{"eos_token_id": [-5]}')(f)),
    ("a template that ends nowhere", template("{% for m in messages %}")),
    ("a template that refuses", template("{{ raise_exception('no\\nno') }}")),
    ("a template that is empty", template("")),
    ("a template that counts for ever", template("{% for i in range(10**12) %}{{ i }}{% endfor %}")),
    ("a template that computes for ever", template("{{ 10 ** (10 ** 10) }}")),
    ("loops in loops for ever", template("{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}")),
    ("a template that fills the memory", template("{{ 'a' * 10 ** 12 }}")),
    ("a template that reaches for Python", template("{{ ''.__class__.__mro__[1].__subclasses__() }}")),
    ("a template that reads no message", template("hello")),
    ("an adapter of a rank of 10**9", adapter(r=10**9, base_model_name_or_path="owner/base")),
    ("an adapter whose base is absent", adapter(base_model_name_or_path="/nonexistent/base")),
    ("an adapter of no base", adapter()),
    ("an adapter whose base is a number", adapter(base_model_name_or_path=7)),
    ("an adapter by a pickle", lambda f: (adapter(base_model_name_or_path="x/y")(f), (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"))),
    ("a tokenizer by its own code", lambda f: (edit(f, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}, tokenizer_class="Evil"), text("evil.py", f"open({str(f / 'it_ran')!r}, 'w')\n")(f))),
    ("a file without an end of its name", lambda f: (f / WEIGHTS).rename(f / "model\n.safetensors")),
)  # fmt: skip


def all_of_them() -> list[tuple[str, Callable[[Path], object]]]:
    """These, and the damages that befall a folder by themselves."""
    return [*HOSTILE, *((one.name, one.do) for one in (*FILES, *CONTENT))]
