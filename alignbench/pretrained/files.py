"""What can be told about a checkpoint's files without reading a weight: which are there, whole, and of what shapes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from alignbench.errors import UserError
from alignbench.pretrained.hub import one_line
from alignbench.untrusted import plain

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The names under which transformers looks for weights, in this order."""
CONFIG = "config.json"
_TOKENIZER = "tokenizer.json"
_OBJECTS = (CONFIG, "generation_config.json", _TOKENIZER, "tokenizer_config.json", "special_tokens_map.json")
_VOCABULARIES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt")
_POINTER = b"version https://git-lfs"
_DISTRIBUTED = re.compile(
    r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors"
)  # transformers prefers these where there are any
_WIDEST_LISTED = 8


@dataclass(frozen=True)
class Stored:
    """What the headers of a checkpoint's files say: the shape of each tensor, and all tensors' bytes."""

    files: tuple[Path, ...]
    shapes: dict[str, tuple[int, ...]]
    bytes: int

    @property
    def numbers(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())


def require_file(path: Path) -> None:
    """Raises UserError unless the file is there and is not a stand-in for one."""
    require_regular(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): restore it, or download it again."
        ) from error
    if not start:
        raise UserError(f"{path} is empty: download it again.")
    if start == _POINTER:
        raise UserError(
            f"{path} is a pointer of Git LFS and not the file itself: run `git lfs pull` in its folder, or download it again."
        )


def require_regular(path: Path) -> None:
    """Raises UserError for a pipe, a socket or a device, under its own name or by a link."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{plain(str(path))} is a pipe or a device, and no file: take it away.")


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    require_file(path)
    try:
        found = _decoded(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it holds no JSON ({one_line(error)}). Download it again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds a JSON {type(found).__name__}, not an object. Download it again.")
    return found


def _decoded(text: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)  # ten times faster, which a vocabulary of megabytes needs
    except (msgspec.DecodeError, RecursionError):
        return json.loads(text)  # knows Infinity, which a config may hold, and says better what is wrong


def check_texts(folder: Path) -> None:
    """Raises UserError for a damaged file among those that describe a model and its tokenizer, and for whatever is no file: to open
    a pipe is to wait for who writes to it, and a device has no end. Libraries open files that are not listed here too."""
    for path in sorted(folder.iterdir()):
        require_regular(path)
    for name in _OBJECTS:
        if name == CONFIG or (folder / name).exists():
            json_object(folder / name)
    for name in _VOCABULARIES:
        if (folder / name).exists():
            require_file(folder / name)


def tokens_of(folder: Path) -> set[str] | None:
    """All tokens that tokenizer.json names; None where there is no such file."""
    if not (folder / _TOKENIZER).is_file():
        return None
    said = json_object(folder / _TOKENIZER)
    model, added = said.get("model"), said.get("added_tokens")
    listed = model.get("vocab") if isinstance(model, dict) else None
    # A mapping from tokens to numbers or, for Unigram, pairs of a token and its score.
    tokens = listed if isinstance(listed, dict) else [entry[0] for entry in listed or ()]
    return {*tokens, *(token["content"] for token in added or ())}


def stored(folder: Path) -> Stored:
    """The headers of the files that transformers reads a checkpoint's weights from. Each must be there, and whole."""
    from safetensors import SafetensorError, safe_open

    files, shapes, size = weight_files(folder), {}, 0
    for path in files:
        require_file(path)
        try:
            with safe_open(path, framework="numpy") as opened:
                shapes.update({name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(
                f"{path} is damaged or cut off, at {path.stat().st_size} bytes ({one_line(error)}): download it again."
            ) from error
        size += path.stat().st_size
    if not shapes:
        raise UserError(f"{files[0]} holds no tensors: download it again.")
    return Stored(files, shapes, size)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Those that transformers reads: one file, or the shards that an index names. Pickles are never read."""
    if odd := next((path.name for path in sorted(folder.iterdir()) if _DISTRIBUTED.fullmatch(path.name)), ""):
        raise UserError(
            f"{folder} holds shards of a distributed checkpoint ({odd}), which are read in place of {WEIGHTS}: "
            "save the model by save_pretrained into a folder of its own."
        )
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    index = folder / INDEX
    if not index.is_file():
        there = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt", ".pth"))
        listed = plain(", ".join(there[:_WIDEST_LISTED])) or "none"
        raise UserError(
            f"{folder} has no {WEIGHTS} and no {INDEX} (weights there: {listed}): weights are read from these safetensors "
            "only. Save the model by save_pretrained of transformers, which writes them."
        )
    places = json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(_is_name(place) for place in places.values()):
        raise UserError(
            f"{index} is damaged: its weight_map does not say which file holds which tensor. Download it again."
        )
    shards = tuple(folder / name for name in sorted({*places.values()}))
    if lost := [shard.name for shard in shards if not shard.is_file()]:
        raise UserError(
            f"{folder} lacks {lost[0]}, one of {len(shards)} files of weights that {INDEX} names "
            f"({len(lost)} missing): download what is missing."
        )
    return shards


def _is_name(place: object) -> bool:
    """Whether this names a file of the folder itself, and not one elsewhere."""
    return isinstance(place, str) and bool(place) and "\0" not in place and Path(place).name == place
