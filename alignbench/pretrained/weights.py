"""Whether a checkpoint's weights can become a model: none missing, all of the model's shapes, all finite, and room for them."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.errors import UserError
from alignbench.pretrained.files import CONFIG, Stored
from alignbench.pretrained.hub import one_line

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_NAMED = 3  # of many tensors, in an error
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_SIZES = (
    *("num_hidden_layers", "num_layers", "n_layers", "n_layer", "num_labels"),
    *("hidden_size", "intermediate_size", "vocab_size", "head_dim", "d_model", "d_ff", "n_embd"),
)
"""How the names end of what multiplies the work of building a model."""
_FEW = 1000  # no size up to it is absurd
_MOST_IN_A_BYTE = 8  # weights, in whatever way they are packed
_GIB = 2**30


def check_sizes(folder: Path, config: Mapping[str, Any], held: Stored) -> None:
    """Raises UserError where config.json has more layers than there are tensors, or a layer wider than each of them, or no layer
    at all: to write down what such a model is may fill the memory already."""
    widest = max(max(shape, default=0) for shape in held.shapes.values())
    most = max(_FEW, len(held.shapes), widest)
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_sizes(folder, value, held)
        if name.endswith(_SIZES) and isinstance(value, (int, float)) and not 0 < value <= most:
            raise UserError(
                f"{folder / CONFIG}: {name}={value} cannot be, where the files have {len(held.shapes)} tensors of at most "
                f"{widest} rows or columns. Restore the config that belongs to the weights."
            )


def check_report(where: Path, model: Any, report: Mapping[str, Collection[Any]], spare: Sequence[str] = ()) -> None:
    """Raises UserError unless every weight of the model comes from the files, in its shape. Libraries draw what is missing
    at random. Tensors without a place in the model are named in the log; where they are further layers of its kind, the
    config describes another model. `spare`: parts of names that may be missing or left over."""
    kind = type(model).__name__
    missing, unread = ([name for name in report[f"{how}_keys"] if not any(part in name for part in spare)]
                       for how in ("missing", "unexpected"))  # fmt: skip
    if missing:
        raise UserError(
            f"The weights in {where} lack {some(missing)}, which a {kind} has: they are of another kind of model, or some "
            "were lost. No weight is made up; use a complete checkpoint."
        )
    if odd := sorted(report["mismatched_keys"]):
        name, found, wanted = odd[0]
        raise UserError(
            f"The weights in {where} do not fit their config: {name} is {list(found)} in the file and would be {list(wanted)} "
            f"({len(odd)} {'differ' if len(odd) > 1 else 'differs'}). Restore the config that belongs to them."
        )
    known = {_NUMBER.sub("*", name) for name in model.state_dict()}
    if further := [name for name in unread if _NUMBER.sub("*", name) in known]:
        raise UserError(
            f"The weights in {where} hold {some(further)}, and by their config the model has no such layers: restore the "
            "config that belongs to them."
        )
    if unread:
        log.warning("%s: a %s has no place for %s, which are not read.", where, kind, some(unread))


def check_packed(folder: Path, model: torch.nn.Module, held: Stored) -> None:
    """The same for weights that a library packed in its own way: how many they are, at most."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    if numbers > _MOST_IN_A_BYTE * held.bytes:
        raise UserError(
            f"The weights in {folder} do not fit its {CONFIG}: {held.bytes} bytes cannot hold {numbers} weights. Restore the "
            "config that belongs to them."
        )


def check_room(needed: int, device: torch.device, ways: Sequence[str]) -> None:
    """Raises UserError where so many bytes are not free; `ways`: settings that take less."""
    free = free_memory(device)
    if free is not None and needed > free:
        less = f" It takes less with {' or '.join(ways)}." if ways else ""
        raise UserError(
            f"Out of memory: the weights take {needed / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB of {device.type}'s memory "
            f"are free.{less}"
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where nothing tells."""
    import torch

    if device.type != "cpu":
        return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:  # of a container; its file cache can be given back
        group = Path("/sys/fs/cgroup")
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(cached["file"])
        return min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, KeyError, ValueError):  # no container, or no limit ("max")
        return free


def check_finite(held: Stored) -> None:
    """Raises UserError for NaN or infinity among stored weights. Read once, as the smallest and largest of each tensor: both
    are NaN where one number is. Five GB a second; they are then in the system's cache for whoever loads them."""
    from safetensors import SafetensorError, safe_open

    for path in held.files:
        try:
            with safe_open(path, framework="pt") as opened:
                odd = [name for name in opened.keys() if not _finite(opened.get_tensor(name))]  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read ({one_line(error)}): download it again.") from error
        if odd:
            raise UserError(
                f"{path} holds NaN or infinity in {some(odd)}: the model that it was saved from had diverged, or the file is "
                "damaged. Use another checkpoint."
            )


def _finite(tensor: torch.Tensor) -> bool:
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    lowest, highest = (tensor.float() if tensor.itemsize == 1 else tensor).aminmax()
    return bool(torch.isfinite(lowest) & torch.isfinite(highest))


def some(names: Collection[str]) -> str:
    """The first few of many names."""
    first = sorted(names)[:_NAMED]
    return ", ".join(first) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
