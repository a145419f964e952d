"""A GPU that is not there: what of it can be seen from Python. The device itself is device.cpp.

Its tensors say cuda:0, lie in the CPU's memory and refuse to meet others; numbers are those of the CPU's kernels. Under
`pretended_gpu()` torch.cuda answers for it, what makes the host wait is counted by the line of this project that asked, and
operators that are no views stand for kernels. A GPU's own kernels, memory and speed are not shown.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

GPU = torch.device("cuda", 0)
GIB = 2**30
aten = torch.ops.aten
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
ASKS = {
    aten._local_scalar_dense.default: "item", aten.nonzero.default: "nonzero", aten.masked_select.default: "masked_select",
    aten.unique_dim.default: "unique", aten._unique2.default: "unique", aten.equal.default: "equal",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}  # fmt: skip
"""Operators whose result, or its shape, the host has to know."""


class PretendedGpu(TorchDispatchMode):
    """`kernels`: how many operators the host started on the device, a graph being one; `waits`: how often each line had the host
    wait for it; `graph`: what is being captured, `captured`: what was last."""

    def __init__(self) -> None:
        super().__init__()
        self.graph: PretendedGraph | None = None
        self.captured: PretendedGraph | None = None
        self.reset()

    def reset(self) -> None:
        self.kernels, self.waits = 0, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.graph is not None:
            return self.graph.capture(func, args, kwargs)
        found = func(*args, **kwargs)
        if any(map(on_gpu, _flat((*args, *kwargs.values())))):
            if why := asks(func, args, found):
                self.waits[f"{asking_line()} {why}"] += 1
            self.kernels += not is_view(func)
        elif on_gpu(found):
            self.kernels += 1
        return found


class PretendedGraph:
    """A CUDA graph: operators are noted while they are captured, on tensors that stay where they are, and run when it is replayed. As
    there, nothing is written while it is captured, and who would wait then is refused."""

    gpu: PretendedGpu

    def __init__(self) -> None:
        self._operators: list[tuple[Any, Any, Any, list[Any]]] = []

    def capture(self, func: Any, args: Any, kwargs: Any) -> Any:
        written = [
            kwargs.get(a.name, args[i] if i < len(args) else None)
            for i, a in enumerate(func._schema.arguments)
            if a.alias_info is not None and a.alias_info.is_write
        ]
        found = written[0] if written else func(*args, **kwargs)
        if not any(map(on_gpu, _flat((*args, *kwargs.values(), found)))):
            return found
        if why := asks(func, args, found):
            raise RuntimeError(f"operation not permitted when stream is capturing ({asking_line()} {why})")
        if not is_view(func):
            made = [] if written else list(_flat(found if isinstance(found, tuple) else [found]))
            self._operators.append((func, args, kwargs, made))
        return found

    def replay(self) -> None:
        with _disable_current_modes():
            for func, args, kwargs, made in self._operators:
                found = func(*args, **kwargs)
                for kept, new in zip(made, _flat(found if isinstance(found, tuple) else [found]), strict=bool(made)):
                    kept.copy_(new)
        self.gpu.kernels += 1

    def __len__(self) -> int:
        return len(self._operators)


def on_gpu(x: Any) -> bool:
    return isinstance(x, Tensor) and x.device.type == "cuda"


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    """Operators take tensors and lists of them."""
    for x in values:
        if isinstance(x, list | tuple):
            yield from x
        else:
            yield x


def asks(func: Any, args: Sequence[Any], found: Any) -> str:
    """Why the host waits for this operator on tensors of the device; empty where it does not."""
    if func in INDEXED and any(on_gpu(x) and x.dtype in (torch.bool, torch.uint8) for x in args[1]):
        return "a mask as index"
    if func in (aten._to_copy.default, aten.copy_.default) and not on_gpu(found):
        return "a copy to the host"
    return ASKS.get(func, "")


@functools.cache
def is_view(func: Any) -> bool:
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(a is not None and not a.is_write for a in aliases) or func in (
        aten.detach.default,
        aten._unsafe_view.default,
    )


def asking_line() -> str:
    """The innermost line of this project, outside of its tests where there is one."""
    frame, found = sys._getframe(2), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name != __file__ and "site-packages" not in name:
            place = f"{'/'.join(name.split('/')[-2:])}:{frame.f_lineno}"
            found = found or place
            if "/alignbench" in name:
                return place
        frame = frame.f_back  # type: ignore[assignment]
    return found


def _clone(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """torch makes storages by themselves only on devices that it was compiled for."""
    room = torch.empty(storage.nbytes(), dtype=torch.uint8, device=storage.device)
    return room.untyped_storage().copy_(storage)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    if "pretended_gpu.so" not in Path("/proc/self/maps").read_text():
        raise RuntimeError("torch has to be told of the device while it is imported: see process.py.")
    properties = types.SimpleNamespace(
        major=8, minor=0, total_memory=24 * GIB, name="pretended", multi_processor_count=108
    )
    answers: dict[str, Any] = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_name": "pretended",
        "get_device_properties": properties, "get_device_capability": (8, 0), "is_bf16_supported": True,
        "mem_get_info": (20 * GIB, 24 * GIB), "memory_reserved": 0, "memory_allocated": 0,
        "max_memory_allocated": GIB, "get_rng_state": torch.zeros(16, dtype=torch.uint8),
    }  # fmt: skip
    quiet = ("_lazy_init", "set_device", "synchronize", "empty_cache", "set_rng_state", "manual_seed_all", "reset_peak_memory_stats")  # fmt: skip
    answers |= dict.fromkeys(quiet)
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch(f"torch.cuda.{name}", lambda *_, answer=answer, **__: answer))
        stack.enter_context(mock.patch("torch.UntypedStorage.clone", _clone))
        gpu = PretendedGpu()
        own = type("PretendedGraph", (PretendedGraph,), {"gpu": gpu})

        @contextlib.contextmanager
        def capturing(graph: PretendedGraph, **_: Any) -> Iterator[None]:
            gpu.waits["synchronize before a graph is captured"] += 1
            gpu.graph = gpu.captured = graph
            try:
                yield
            finally:
                gpu.graph = None

        stack.enter_context(mock.patch("torch.cuda.CUDAGraph", own))
        stack.enter_context(mock.patch("torch.cuda.graph", capturing))
        stack.enter_context(mock.patch("torch.cuda.is_current_stream_capturing", lambda: gpu.graph is not None))
        yield stack.enter_context(gpu)
